// What every page needs: parts that stay current, the theme, copying, and distances seen from this browser.
import htmx from "htmx.org";
import { keepCurrent } from "./lib/parts.js";
import { measureAll } from "./lib/measure.js";

// The content policy allows neither evaluation nor styles that a script writes into the page.
htmx.config.allowEval = false;
htmx.config.includeIndicatorStyles = false;
htmx.config.historyCacheSize = 0;

keepCurrent();
measureAll(document);
document.addEventListener("htmx:load", (event) => measureAll(event.detail.elt));

const again = document.querySelector("[data-measure-again]");
if (again) {
  again.hidden = false;
  again.addEventListener("click", () => measureAll(document, { anew: true }));
}

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}

const zone = document.querySelector("[data-zone]");
if (zone) zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone;

const theme = document.querySelector("[data-theme-switch]");
if (theme) {
  const dark = () =>
    (document.documentElement.dataset.theme ||
      (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const label = () => (theme.textContent = dark() ? "Light" : "Dark");
  theme.hidden = false;
  label();
  theme.addEventListener("click", () => {
    const wanted = dark() ? "light" : "dark";
    document.documentElement.dataset.theme = wanted;
    document.cookie = `coder_theme=${wanted}; path=/; max-age=31536000; samesite=lax`;
    label();
    document.dispatchEvent(new Event("theme"));
  });
}
