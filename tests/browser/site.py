"""A deployment with something on every page, and a browser to look at it."""

import contextlib
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from e2e.deployment import PASSWORD, Deployment, running
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""
EMAIL = "a@example.com"

PAGES = {
    "workspaces": "/workspaces",
    "workspace-new": "/workspaces/new",
    "workspace": "/@{user}/dev",
    "workspace-away": "/@{user}/laptop",
    "workspace-built": "/@{user}/box",
    "templates": "/templates",
    "template-new": "/templates/new?kind=docker",
    "template": "/templates/shells",
    "regions": "/regions",
    "connections": "/connectionlog",
    "users": "/users",
    "user": "/users/bob",
    "audit": "/audit",
    "health": "/health",
    "tokens": "/settings/tokens",
    "account": "/settings/account",
    "cli-auth": "/cli-auth",
    "not-found": "/@{user}/nowhere",
}
"""By name: where each page for signed-in users is."""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def populated(place: Path, *flags: str) -> Iterator[Deployment]:
    """A server with a connected workspace, one that is away, one it builds itself, a second user and a token."""
    with running(place, *flags) as made:
        made.ok("create", "laptop", "--output-token-file", str(made.place / "laptop"))
        made.ok("tokens", "create", "--name", "ci")
        made.ok("users", "create", "--username", "bob", "--email", "bob@example.com", CODER_USER_PASSWORD=PASSWORD)
        made.ok(
            "templates", "create", "shells", "--kind", "process", "--stop-after", "8h", "--description", "To try out"
        )
        made.ok("create", "box", "--template", "shells")
        made.ok("schedule", "start", "box", "9:00AM Mon-Fri Europe/Berlin")
        made.ok("ssh", "dev", "true")
        with socket.create_server(("127.0.0.1", 0)) as chosen:
            port = chosen.getsockname()[1]
        made.start("forward", "port-forward", "dev", "--tcp", f"127.0.0.1:{port}:8080")
        yield made


def sign_in(context: BrowserContext, url: str, email: str = EMAIL, password: str = PASSWORD) -> Page:
    """Sign in as a person does."""
    page = context.new_page()
    page.goto(f"{url}/login")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{url}/workspaces")
    return page
