"""Programs that people run in workspaces, used in a browser by their apps' hosts. Each is skipped where it is not
installed: `jupyter-lab` and `vite` are looked for in PATH.

Browsers take every name below `localhost` for this machine.
"""

import contextlib
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.deployment import PATIENCE, Deployment, running, wait_until
from e2e.services import free_ports
from e2e.test_real_apps import program, started
from playwright.sync_api import Browser, BrowserContext, Page, expect
from websockets.sync.server import ServerConnection, serve

from browser.site import sign_in

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site(needed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with running(tmp_path_factory.mktemp("apps"), "--wildcard-access-url", "*.apps.localhost") as made:
        yield made


@pytest.fixture(scope="module")
def session(browser: Browser, site: Deployment) -> Iterator[BrowserContext]:
    made = browser.new_context()
    made.set_default_timeout(PATIENCE * 1000)
    sign_in(made, site.url).close()
    yield made
    made.close()


@pytest.fixture
def page(session: BrowserContext) -> Iterator[Page]:
    opened = session.new_page()
    yield opened
    opened.close()


def origin(site: Deployment, port: int) -> str:
    return f"http://{port}--main--dev--admin.apps.localhost:{site.url.rpartition(':')[2]}"


def opened(page: Page, url: str) -> None:
    """Open an app once it listens; until then the server's page says that nothing does."""
    wait_until(url, lambda: page.goto(url).ok)


@contextlib.contextmanager
def echo() -> Iterator[int]:
    def answer(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(answer, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join(PATIENCE)


def test_a_page_of_one_port_talks_to_a_websocket_of_another(site: Deployment, page: Page, tmp_path: Path):
    (port,) = free_ports()
    (tmp_path / "index.html").write_text("<title>Files</title><h1>here</h1>")
    (tmp_path / "data.bin").write_bytes(bytes(range(256)) * 4096)
    with echo() as other, started(sys.executable, "-m", "http.server", "-b", "127.0.0.1", str(port), place=tmp_path):
        opened(page, f"{origin(site, port)}/")
        expect(page.get_by_role("heading")).to_have_text("here")
        said = page.evaluate(
            """(url) => new Promise((resolve, reject) => {
                const socket = new WebSocket(url);
                socket.onopen = () => socket.send("a".repeat(100000));
                socket.onmessage = ({ data }) => resolve(data.length);
                socket.onerror = () => reject(new Error("no WebSocket"));
            })""",
            origin(site, other).replace("http", "ws"),
        )
        size = page.evaluate("async () => (await (await fetch('/data.bin')).arrayBuffer()).byteLength")
        cookies = page.evaluate("document.cookie")
    assert (said, size, cookies) == (100_000, 1 << 20, "")


def test_a_dev_server_changes_the_page_without_loading_it_anew(site: Deployment, page: Page, tmp_path: Path):
    vite, (port,) = program("vite"), free_ports()
    text = "document.querySelector('h1').textContent = '{}'; import.meta.hot.accept()"
    (tmp_path / "index.html").write_text('<h1>-</h1><script type="module" src="/main.js"></script>')
    (tmp_path / "main.js").write_text(text.format("one"))
    (tmp_path / "vite.config.mjs").write_text('export default { server: { allowedHosts: [".apps.localhost"] } }')
    with started(vite, "--host", "127.0.0.1", "--port", str(port), "--strictPort", place=tmp_path):
        with page.expect_websocket():
            opened(page, f"{origin(site, port)}/")
        expect(page.get_by_role("heading")).to_have_text("one")
        page.evaluate("window.kept = true")
        (tmp_path / "main.js").write_text(text.format("two"))
        expect(page.get_by_role("heading")).to_have_text("two")
        assert page.evaluate("window.kept")


@pytest.fixture
def lab(site: Deployment, page: Page, tmp_path: Path) -> Iterator[Page]:
    jupyter, (port,) = program("jupyter-lab"), free_ports()
    free = ("--ServerApp.token=", "--ServerApp.password=", "--allow-root", "--ServerApp.allow_remote_access=True")
    where = ("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", f"--notebook-dir={tmp_path}")
    with started(jupyter, "--no-browser", *free, *where, place=tmp_path):
        opened(page, f"{origin(site, port)}/lab?reset")
        page.locator(".jp-LauncherCard").first.wait_for()
        yield page


def test_a_notebook_runs_a_cell(lab: Page):
    lab.locator(".jp-LauncherCard[data-category=Notebook]").first.click()
    cell = lab.locator(".jp-CodeCell .cm-content").first
    cell.click()
    lab.keyboard.type("print(6 * 7)")
    lab.keyboard.press("Shift+Enter")
    expect(lab.locator(".jp-OutputArea-output").first).to_have_text(re.compile("^42"))


def test_a_terminal_of_a_notebook_server_is_typed_into(lab: Page, tmp_path: Path):
    lab.locator(".jp-LauncherCard[title*=terminal i]").first.click()
    screen = lab.locator(".jp-Terminal .xterm-helper-textarea")
    screen.wait_for(state="attached")
    wait_until("a shell that answers", lambda: _typed(lab, tmp_path))


def _typed(lab: Page, place: Path) -> bool:
    lab.locator(".jp-Terminal .xterm-helper-textarea").focus()
    lab.keyboard.type("echo $((6*7)) >answer")
    lab.keyboard.press("Enter")
    lab.wait_for_timeout(300)
    found = place / "answer"
    return found.exists() and found.read_text() == "42\n"
