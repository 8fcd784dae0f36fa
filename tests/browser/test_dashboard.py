"""The dashboard in a real browser."""

import json
import re
from pathlib import Path

import pytest
from e2e.deployment import PASSWORD, Deployment
from playwright.sync_api import BrowserContext, Page, expect

from browser.site import EMAIL, PAGES, sign_in

pytestmark = pytest.mark.e2e

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
FIRST_PAGE = 100 * 1024


def accessible(page: Page) -> None:
    """Fail with what axe finds fault with (WCAG 2.1, levels A and AA)."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: make assets")
    page.evaluate(AXE.read_text() + ";undefined")
    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}}
    report = page.evaluate("(rules) => axe.run(document, rules)", rules)
    assert len(report["passes"]) > 10
    found = report["violations"]
    told = [(each["id"], [node["html"][:160] for node in each["nodes"]], each["help"]) for each in found]
    assert told == [], json.dumps(told, indent=1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_pages_are_accessible_in_light_and_dark(site: Deployment, page: Page, name: str, scheme: str):
    page.emulate_media(color_scheme=scheme)
    page.goto(site.url + PAGES[name].format(user="admin"))
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    accessible(page)


def test_the_login_page_is_accessible(site: Deployment, context: BrowserContext):
    page = context.new_page()
    page.goto(f"{site.url}/login")
    accessible(page)


def test_a_new_server_is_set_up_by_keyboard_alone(context: BrowserContext, tmp_path: Path):
    made = Deployment(tmp_path)
    try:
        made.start_server()
        page = context.new_page()
        page.goto(made.url)
        accessible(page)
        page.get_by_label("E-mail address").focus()
        for typed in (EMAIL, "admin", "", PASSWORD, PASSWORD):
            page.keyboard.type(typed)
            page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Create the owner")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Workspaces")).to_be_visible()
    finally:
        made.close()


@pytest.mark.parametrize("name", PAGES)
def test_pages_fit_a_phone(site: Deployment, page: Page, name: str):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(site.url + PAGES[name].format(user="admin"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_wrong_password_keeps_the_address_and_says_so(site: Deployment, context: BrowserContext):
    page = context.new_page()
    page.goto(f"{site.url}/login")
    page.get_by_label("E-mail address").fill(EMAIL)
    page.get_by_label("Password").fill("not the password 1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    expect(page.get_by_label("E-mail address")).to_have_value(EMAIL)
    assert page.get_by_label("Password").input_value() == ""


def test_a_login_leads_back_to_the_page_that_was_asked_for(site: Deployment, context: BrowserContext):
    page = context.new_page()
    page.goto(f"{site.url}/@admin/dev")
    expect(page).to_have_url(re.compile(r"/login\?redirect="))
    page.get_by_label("E-mail address").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.url}/@admin/dev")


def test_signing_out_ends_the_session_for_other_tabs_too(site: Deployment, context: BrowserContext):
    page = sign_in(context, site.url)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    page.goto(f"{site.url}/workspaces")
    expect(page).to_have_url(re.compile("/login"))


def test_it_works_without_scripts(browser, site: Deployment):
    context = browser.new_context(java_script_enabled=False)
    page = sign_in(context, site.url)
    page.get_by_role("link", name="New workspace").click()
    page.get_by_label("Name").fill("plain")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_text("CODER_AGENT_TOKEN")).to_be_visible()
    page.goto(f"{site.url}/@admin/plain")
    page.get_by_label("to confirm").fill("plain")
    page.get_by_role("button", name="Delete the workspace").click()
    expect(page.get_by_role("status")).to_have_text("The workspace is deleted.")
    context.close()


def test_it_is_used_by_keyboard_alone(site: Deployment, page: Page):
    page.goto(f"{site.url}/workspaces")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="New workspace")).to_be_focused()


def test_the_phone_menu_opens_by_keyboard(site: Deployment, page: Page):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{site.url}/workspaces")
    expect(page.get_by_role("link", name="Regions")).to_be_hidden()
    page.get_by_role("checkbox", name="Show the menu").focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("link", name="Regions")).to_be_visible()


def test_the_first_page_is_small(site: Deployment, context: BrowserContext):
    page = context.new_page()
    sizes: list[int] = []
    page.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
    page.goto(f"{site.url}/login")
    page.wait_for_load_state("networkidle")
    assert 0 < sum(sizes) < FIRST_PAGE


def test_nothing_is_loaded_from_elsewhere(site: Deployment, page: Page):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site.url}/@admin/dev")
    page.wait_for_load_state("networkidle")
    assert [url for url in asked if not url.startswith((site.url, "data:"))] == []


def test_the_list_shows_by_itself_that_an_agent_was_lost_and_came_back(site: Deployment, page: Page):
    page.goto(f"{site.url}/workspaces")
    card = page.get_by_role("listitem").filter(has=page.get_by_role("link", name="dev", exact=True))
    expect(card.get_by_text("connected", exact=True)).to_be_visible()
    site.stop("agent", kill=True)
    expect(card.get_by_text("disconnected", exact=True)).to_be_visible(timeout=60_000)
    site.start_agent()
    expect(card.get_by_text("connected", exact=True)).to_be_visible(timeout=60_000)


def test_the_picture_and_the_chart_show_each_leg(site: Deployment, page: Page):
    page.goto(f"{site.url}/@admin/dev")
    way = page.locator(".way").first
    expect(way).to_contain_text("This browser")
    expect(way.locator("[data-measure]")).to_have_text(re.compile(r"\d ms"))
    expect(way.locator(".leg").nth(1)).to_contain_text(re.compile("direct|by relay"), timeout=30_000)
    expect(page.locator("[data-latency-chart] canvas")).to_be_visible()


def test_the_picture_says_live_how_a_command_line_is_connected(site: Deployment, page: Page):
    site.start("ping", "ping", "dev", "-n", "0")
    try:
        page.goto(f"{site.url}/@admin/dev")
        line = page.locator(".way").filter(has_text="command line")
        expect(line.locator(".leg.direct").first).to_contain_text("direct", timeout=30_000)
    finally:
        site.stop("ping")


def test_a_speed_test_says_both_directions(site: Deployment, page: Page):
    page.goto(f"{site.url}/@admin/dev")
    page.get_by_role("button", name="Speed test from here").click()
    expect(page.locator("[data-speed]")).to_have_text(
        re.compile(
            r"Browser and server: [\d.]+ [MG]bit/s down, [\d.]+ [MG]bit/s up\. "
            r"Server and workspace: [\d.]+ [MG]bit/s down, [\d.]+ [MG]bit/s up, (direct|relayed)"
        ),
        timeout=60_000,
    )


def test_regions_are_measured_from_the_browser(site: Deployment, page: Page):
    page.goto(f"{site.url}/regions")
    expect(page.locator("[data-measure]").first).to_have_text(re.compile(r"\d ms"))


def test_the_theme_is_switched_and_kept(site: Deployment, page: Page):
    page.emulate_media(color_scheme="light")
    page.goto(f"{site.url}/workspaces")
    page.get_by_role("button", name="Dark").click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Light").click()


def test_a_port_in_a_form_that_is_being_filled_in_is_not_swapped_away(site: Deployment, page: Page):
    page.goto(f"{site.url}/workspaces")
    search = page.get_by_role("searchbox")
    search.fill("owner:me name:dev")
    page.evaluate("document.body.dispatchEvent(new Event('tick5'))")
    page.wait_for_load_state("networkidle")
    expect(search).to_have_value("owner:me name:dev")
