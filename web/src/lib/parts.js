// Parts of a page that ask for news of themselves. Nobody looking, nobody asks.

const PERIODS = [3, 5];
const TAG = "X-Part-Tag";

export function keepCurrent() {
  let seconds = 0;
  setInterval(() => {
    if (document.hidden) return;
    seconds += 1;
    for (const period of PERIODS) {
      if (seconds % period === 0) document.body.dispatchEvent(new Event(`tick${period}`));
    }
  }, 1000);

  document.addEventListener("htmx:configRequest", ({ detail }) => {
    if (detail.elt.dataset.tag) detail.headers[TAG] = detail.elt.dataset.tag;
  });
  document.addEventListener("htmx:beforeSwap", ({ detail }) => {
    const part = detail.target;
    if (!part.hasAttribute("data-part")) return;
    if (inUse(part)) detail.shouldSwap = false;
    else part.dataset.tag = detail.xhr.getResponseHeader(TAG) || "";
    remember(part);
  });
  document.addEventListener("htmx:afterSwap", ({ detail }) => {
    if (detail.target.hasAttribute("data-part")) restore(detail.target);
  });
  for (const log of document.querySelectorAll("pre.log")) log.scrollTop = log.scrollHeight;
}

/** Whether somebody types, chooses or marks text there: it must not change under their hands. */
function inUse(part) {
  const active = document.activeElement;
  if (active && part.contains(active) && active.matches("input, select, textarea")) return true;
  const marked = document.getSelection();
  return Boolean(marked && !marked.isCollapsed && part.contains(marked.anchorNode));
}

const kept = new WeakMap();

function remember(part) {
  const logs = [...part.querySelectorAll("pre.log")];
  kept.set(part, {
    open: [...part.querySelectorAll("details")].map((each) => each.open),
    logs: logs.map((each) => (each.scrollTop + each.clientHeight >= each.scrollHeight - 8 ? Infinity : each.scrollTop)),
    focus: [...part.querySelectorAll("a, button, summary, pre")].indexOf(document.activeElement),
  });
}

function restore(part) {
  const before = kept.get(part);
  if (!before) return;
  part.querySelectorAll("details").forEach((each, index) => (each.open = before.open[index] ?? each.open));
  part.querySelectorAll("pre.log").forEach((each, index) => {
    each.scrollTop = Math.min(before.logs[index] ?? Infinity, each.scrollHeight);
  });
  if (before.focus >= 0) part.querySelectorAll("a, button, summary, pre")[before.focus]?.focus({ preventScroll: true });
}
