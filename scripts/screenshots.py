"""`make screenshots`: one picture of each page, light, dark and on a phone, into build/screenshots."""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from browser.site import CHROMIUM, PAGES, chromium, populated, sign_in  # noqa: E402
from e2e.deployment import Deployment  # noqa: E402
from playwright.sync_api import Browser, Page  # noqa: E402

OUT = ROOT / "build" / "screenshots"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
LOOKS = {"light": ("light", DESKTOP), "dark": ("dark", DESKTOP), "phone": ("light", PHONE)}


def pictures(browser: Browser, url: str, look: str) -> None:
    scheme, size = LOOKS[look]
    context = browser.new_context(viewport=size, color_scheme=scheme)
    entry = context.new_page()
    entry.goto(f"{url}/login")
    entry.screenshot(path=OUT / f"login-{look}.png", full_page=True)
    entry.close()
    page = sign_in(context, url, "bob@example.com")
    page.screenshot(path=OUT / f"workspaces-none-{look}.png", full_page=True)
    context.clear_cookies()
    page = sign_in(context, url)
    for name, path in PAGES.items():
        page.goto(url + path.format(user="admin"))
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(4000 if name == "workspace" else 300)
        page.screenshot(path=OUT / f"{name}-{look}.png", full_page=True)
    terminal(page, url, look)
    if look == "phone":
        page.goto(f"{url}/workspaces")
        page.get_by_role("checkbox", name="Show the menu").check(force=True)
        page.screenshot(path=OUT / f"menu-{look}.png")
    context.close()


def terminal(page: Page, url: str, look: str) -> None:
    page.goto(f"{url}/@admin/dev/terminal")
    page.wait_for_selector("#terminal[data-state=open]")
    page.locator("#terminal textarea").focus()
    page.keyboard.type("ls -l / | head -20")
    page.keyboard.press("Enter")
    page.wait_for_timeout(1000)
    page.screenshot(path=OUT / f"terminal-{look}.png")


def of_a_new_server(browser: Browser, place: Path) -> None:
    made = Deployment(place)
    try:
        made.start_server()
        for look, (scheme, size) in LOOKS.items():
            page = browser.new_page(viewport=size, color_scheme=scheme)
            page.goto(f"{made.url}/")
            page.screenshot(path=OUT / f"setup-{look}.png", full_page=True)
            page.close()
    finally:
        made.close()


def main() -> None:
    if not CHROMIUM:
        sys.exit("There is no chromium here; install your system's package of it.")
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, chromium() as browser:
        of_a_new_server(browser, Path(place))
    with tempfile.TemporaryDirectory() as place, populated(Path(place)) as made, chromium() as browser:
        for look in LOOKS:
            pictures(browser, made.url, look)
    print(f"{len(list(OUT.glob('*.png')))} pictures in {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
