"""A workspace that the server itself builds, from the form to its end, in a real browser."""

import json
import re
import urllib.request

import pytest
from e2e.deployment import Deployment
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.e2e

EVIL = "<b onmouseover=alert(1)>"
TEMPLATE = {
    "name": "here",
    "kind": "process",
    "display_name": "On this machine",
    "description": "A process beside the server",
    "parameters": [{"name": "size", "display_name": "Size", "options": ["small", "large"], "default": "small"}],
    "agents": [
        {
            "scripts": [{"display_name": "Greeting", "script": f"printf '\\033[31mred\\033[0m {EVIL}\\n'"}],
            "apps": [
                {"slug": "shell", "display_name": "Shell", "command": "bash"},
                {"slug": "manual", "display_name": "Manual", "url": "https://manual.example/", "external": True},
                {"slug": "trap", "display_name": "Trap", "url": "javascript:alert(1)", "external": True},
            ],
        }
    ],
}


def offer(site: Deployment) -> None:
    token = (site.place / "config" / "session").read_text().strip()
    asked = urllib.request.Request(
        f"{site.url}/api/v2/organizations/default/templates",
        json.dumps(TEMPLATE).encode(),
        {"Coder-Session-Token": token, "Content-Type": "application/json"},
    )
    urllib.request.urlopen(asked, timeout=10).close()


def test_a_workspace_is_built_stopped_started_and_deleted(site: Deployment, page: Page):
    offer(site)
    page.goto(f"{site.url}/workspaces")
    page.get_by_role("link", name="New workspace").click()
    page.get_by_role("link", name="On this machine").click()
    page.get_by_label("Name").fill("built")
    page.get_by_label("Size").select_option("large")
    page.get_by_role("button", name="Create the workspace").click()
    expect(page).to_have_url(re.compile("/@admin/built"))
    state = page.locator(".headline .state").first
    expect(state).to_have_text("connected", timeout=60_000)
    expect(page.locator("pre.log").filter(has_text="red")).to_contain_text(f"red {EVIL}", timeout=30_000)
    expect(page.get_by_role("link", name="Shell")).to_have_attribute("href", "/@admin/built/terminal?command=bash")
    expect(page.get_by_role("link", name="Manual")).to_have_attribute("href", "https://manual.example/")
    expect(page.get_by_role("link", name="Trap")).to_have_count(0)
    page.get_by_role("button", name="Stop").click()
    expect(state).to_have_text("stopped", timeout=60_000)
    page.get_by_role("button", name="Start").click()
    expect(state).to_have_text("connected", timeout=60_000)
    page.get_by_label("to confirm").fill("built")
    page.get_by_role("button", name="Delete the workspace").click()
    expect(page.get_by_role("status")).to_have_text("The workspace is deleted.")
