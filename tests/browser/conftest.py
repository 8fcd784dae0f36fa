from collections.abc import Iterator

import pytest
from e2e.deployment import Deployment
from playwright.sync_api import Browser, BrowserContext, Page

from browser.site import CHROMIUM, chromium, populated, sign_in
from coder.web.assets import Assets


@pytest.fixture(scope="session", autouse=True)
def needed() -> None:
    if not CHROMIUM:
        pytest.skip("there is no chromium: install the system's package")
    if not Assets().built:
        pytest.skip("the dashboard's assets are not built: make assets (needs npm)")


@pytest.fixture(scope="module")
def browser(needed: None) -> Iterator[Browser]:
    """A browser for one module: while it runs there is an event loop in this thread, so no other test can have one."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def site(needed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with populated(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser without a past."""
    made = browser.new_context()
    made.set_default_timeout(15_000)
    yield made
    made.close()


@pytest.fixture(scope="module")
def session(browser: Browser, site: Deployment) -> Iterator[BrowserContext]:
    """A browser that is signed in; whoever changes its session uses another."""
    made = browser.new_context()
    made.set_default_timeout(15_000)
    sign_in(made, site.url).close()
    yield made
    made.close()


@pytest.fixture
def page(session: BrowserContext) -> Iterator[Page]:
    """A page of the signed-in browser. Nothing on it may break the content policy or throw."""
    opened = session.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda fault: faults.append(str(fault)))
    opened.on(
        "console",
        lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None,
    )
    yield opened
    opened.close()
    assert faults == []
