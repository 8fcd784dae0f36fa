"""`make screenshots`: one picture of each page, light, dark and on a phone, into build/screenshots."""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from browser.site import CHROMIUM, PAGES, chromium, populated, sign_in  # noqa: E402
from playwright.sync_api import Browser  # noqa: E402

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
    page = sign_in(context, url)
    for name, path in PAGES.items():
        page.goto(url + path.format(user="admin"))
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(4000 if name == "workspace" else 300)
        page.screenshot(path=OUT / f"{name}-{look}.png", full_page=True)
    context.close()


def main() -> None:
    if not CHROMIUM:
        sys.exit("There is no chromium here; install your system's package of it.")
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, populated(Path(place)) as made, chromium() as browser:
        for look in LOOKS:
            pictures(browser, made.url, look)
    print(f"{len(list(OUT.glob('*.png')))} pictures in {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
