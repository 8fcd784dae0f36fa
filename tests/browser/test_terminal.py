"""The web terminal in a real browser: typed into, resized, reloaded, cut off and reconnected."""

import re

import pytest
from e2e.deployment import Deployment
from playwright.sync_api import BrowserContext, Page, expect

from browser.site import EMAIL, PASSWORD, sign_in
from browser.test_dashboard import accessible

pytestmark = pytest.mark.e2e

HERE = "/@admin/dev/terminal?renderer=dom"
"""The renderer whose text can be read from the page."""


def opened(page: Page, url: str) -> Page:
    page.goto(url)
    expect(page.locator("#terminal")).to_have_attribute("data-state", "open")
    return page


def screen(page: Page) -> str:
    rows = page.locator(".xterm-rows > div").all_inner_texts()
    return "\n".join(row.replace("\xa0", " ").rstrip() for row in rows)


def shows(page: Page, pattern: str) -> str:
    """Wait until the terminal shows something; return all it shows."""
    found = page.wait_for_function(
        """(pattern) => {
            const text = [...document.querySelectorAll(".xterm-rows > div")]
                .map((row) => row.innerText.replaceAll("\\u00a0", " ").trimEnd()).join("\\n");
            return new RegExp(pattern, "m").test(text) ? text : null;
        }""",
        arg=pattern,
    )
    return str(found.json_value())


def run(page: Page, command: str) -> None:
    page.locator("#terminal textarea").focus()
    page.keyboard.type(command)
    page.keyboard.press("Enter")


@pytest.fixture
def terminal(site: Deployment, page: Page) -> Page:
    opened(page, site.url + HERE)
    run(page, "stty -echoctl; PS1='ready> '; clear")
    shows(page, "^ready> ?$")
    return page


def test_typing_runs_commands_and_the_window_has_its_size(terminal: Page):
    run(terminal, "echo $((6*7)) ä 漢字 $TERM")
    shows(terminal, "^42 ä 漢字 xterm-256color")
    run(terminal, "stty size")
    before = re.search(r"^(\d+) (\d+)$", shows(terminal, r"^\d+ \d+$"), re.MULTILINE)
    assert before is not None
    terminal.set_viewport_size({"width": 640, "height": 400})
    run(terminal, "clear; stty size")
    after = re.search(r"^(\d+) (\d+)$", shows(terminal, rf"^(?!{before[0]}$)\d+ \d+$"), re.MULTILINE)
    assert after is not None
    assert int(after[1]) < int(before[1])
    assert int(after[2]) < int(before[2])


def test_a_reload_and_another_tab_come_to_the_same_terminal(terminal: Page, session: BrowserContext):
    run(terminal, "mine=kept-$((1+1)); echo $mine")
    shows(terminal, "^kept-2$")
    terminal.reload()
    shows(terminal, "^kept-2$")
    other = opened(session.new_page(), terminal.url)
    shows(other, "^kept-2$")
    run(other, "echo from-$mine")
    shows(terminal, "^from-kept-2$")
    other.close()


def test_a_lost_network_is_made_good(terminal: Page, session: BrowserContext):
    run(terminal, "mine=still-here; (sleep 0.5; echo; echo while-away) & disown; echo gone-$((1+2))")
    shows(terminal, "^gone-3$")
    session.set_offline(True)
    expect(terminal.locator("#terminal")).to_have_attribute("data-state", "lost")
    session.set_offline(False)
    expect(terminal.locator("#status")).to_have_text(re.compile(r"Reconnected in \d+\.\d s"))
    shows(terminal, "^while-away$")
    run(terminal, "echo $mine-$((2+2))")
    shows(terminal, "^still-here-4$")


def test_a_restart_of_the_server_is_survived(terminal: Page, site: Deployment):
    run(terminal, "mine=survivor; echo before-$((3+3))")
    shows(terminal, "^before-6$")
    site.stop("server")
    expect(terminal.locator("#terminal")).to_have_attribute("data-state", "lost")
    site.start_server()
    expect(terminal.locator("#terminal")).to_have_attribute("data-state", "open", timeout=30_000)
    shows(terminal, "^before-6$")
    run(terminal, "echo $mine-$((4+4))")
    shows(terminal, "^survivor-8$")


def test_the_end_of_the_program_is_said_and_enter_begins_anew(terminal: Page):
    before = terminal.url
    run(terminal, "exit")
    expect(terminal.locator("#status")).to_contain_text("The program has ended")
    terminal.locator("#terminal textarea").focus()
    terminal.keyboard.press("Enter")
    expect(terminal.locator("#terminal")).to_have_attribute("data-state", "open")
    assert terminal.url != before


def test_a_flood_is_followed_to_its_end_and_can_be_interrupted(terminal: Page):
    run(terminal, "seq 1 200000; echo the-end")
    shows(terminal, "^the-end$")
    run(terminal, "yes flood")
    shows(terminal, "^flood$")
    terminal.keyboard.press("Control+c")
    run(terminal, "clear; echo quiet-$((5+5))")
    shows(terminal, "^quiet-10$")


def test_titles_links_and_the_clipboard_are_not_the_programs(terminal: Page, session: BrowserContext, site: Deployment):
    session.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.url)
    terminal.evaluate("navigator.clipboard.writeText('mine')")
    run(terminal, r"printf '\033]52;c;ZXZpbA==\007\033]2;a\342\200\256b\007done-%d\n' 7")
    shows(terminal, "^done-7$")
    assert terminal.evaluate("navigator.clipboard.readText()") == "mine"
    expect(terminal).to_have_title(re.compile("^a b . dev . Coder$"))
    run(
        terminal,
        r"clear; printf '\033]8;;javascript:alert(1)\033\\bad\033]8;;\033\\ \033]8;;http://127.0.0.1:9/x\033\\good\033]8;;\033\\\n'",
    )
    shows(terminal, "^bad good$")
    box = terminal.locator(".xterm-rows > div", has_text="bad good").first.bounding_box()
    assert box is not None
    width = box["width"] / terminal.evaluate("Math.max(1, document.querySelector('.xterm-rows').clientWidth / 9)")
    click_at(terminal, box, width, 1)
    expect(terminal.locator("#ask")).to_be_hidden()
    click_at(terminal, box, width, 6)
    expect(terminal.locator("#ask-text")).to_have_text("http://127.0.0.1:9/x")
    terminal.get_by_role("button", name="No").click()
    assert len([each for each in session.pages if "127.0.0.1:9" in each.url]) == 0


def click_at(page: Page, box: dict[str, float], width: float, column: int) -> None:
    x, y = box["x"] + width * column, box["y"] + box["height"] / 2
    page.mouse.move(x - 1, y)
    page.mouse.move(x, y)
    page.mouse.click(x, y)


def test_a_command_from_elsewhere_is_asked_about(
    page: Page, site: Deployment, tmp_path_factory: pytest.TempPathFactory
):
    mark = tmp_path_factory.mktemp("mark") / "ran"
    page.goto(f"{site.url}/@admin/dev/terminal?renderer=dom&command=touch%20{mark}")
    expect(page.locator("#ask-text")).to_have_text(f"touch {mark}")
    page.get_by_role("button", name="No").click()
    expect(page.locator("#status")).to_have_text("Nothing was run.")
    assert not mark.exists()
    page.reload()
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#status")).to_contain_text("has ended")
    assert mark.exists()


def test_a_command_that_comes_through_the_login_is_asked_about(site: Deployment, context: BrowserContext):
    page = context.new_page()
    page.goto(f"{site.url}/@admin/dev/terminal?renderer=dom&command=date")
    page.get_by_label("E-mail address").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#ask-text")).to_have_text("date")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(terminal: Page, scheme: str):
    terminal.emulate_media(color_scheme=scheme)
    accessible(terminal)


def test_who_signs_out_is_told(site: Deployment, context: BrowserContext):
    page = sign_in(context, site.url)
    opened(page, site.url + HERE)
    context.request.post(f"{site.url}/api/v2/users/logout", headers={"Origin": site.url})
    expect(page.locator("#status")).to_contain_text("You are signed out")
