// The terminal page: a terminal whose session outlives the page, the network and the server.
import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { Unicode11Addon } from "@xterm/addon-unicode11";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { WebglAddon } from "@xterm/addon-webgl";
import { Terminal } from "@xterm/xterm";
import { Link } from "./lib/link.js";
import { adoptStyles } from "./lib/sheets.js";

const USED_EVERY = 60_000;
const STATUS_FOR = 5000;

adoptStyles();
const place = document.getElementById("terminal");
const status = document.getElementById("status");
const query = new URLSearchParams(location.search);
const fresh = () => "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (digit) =>
  (digit ^ (crypto.getRandomValues(new Uint8Array(1))[0] & (15 >> (digit / 4)))).toString(16));

function session() {
  // The id stands in the address: a reload, and whoever opens this address too, comes to the same terminal.
  if (!/^[0-9a-f-]{36}$/i.test(query.get("reconnect") ?? "")) query.set("reconnect", fresh());
  history.replaceState(null, "", `${location.pathname}?${query}`);
  return query.get("reconnect");
}

let fading;
function tell(words, { trouble = false, fades = false } = {}) {
  clearTimeout(fading);
  status.textContent = words;
  status.classList.toggle("trouble", trouble);
  if (fades) fading = setTimeout(() => (status.textContent = ""), STATUS_FOR);
}

function ask(what, text, yes) {
  const dialog = document.getElementById("ask");
  if (dialog.open) return Promise.resolve(false);
  document.getElementById("ask-what").textContent = what;
  document.getElementById("ask-text").textContent = plain(text, 4000);
  document.getElementById("ask-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((answered) =>
    dialog.addEventListener("close", () => answered(dialog.returnValue === "yes"), { once: true }));
}

// What a program prints may end up in a title or a question: without what would reorder, hide or control it.
function plain(text, most) {
  const clean = String(text).replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\u2028\u2029]/gu, " ").trim();
  return clean.length > most ? `${clean.slice(0, most)} …` : clean;
}

function web(address) {
  try {
    const found = new URL(address);
    return found.protocol === "https:" || found.protocol === "http:" ? found : null;
  } catch {
    return null;
  }
}

function follow(address) {
  const found = web(address);
  if (found) window.open(found.href, "_blank", "noopener,noreferrer");
}

// A link whose words are not its address: say where it leads before going there.
async function followHidden(address) {
  const found = web(address);
  if (found && (await ask("This link of a program in the terminal leads to", found.href, "Open"))) follow(found.href);
}

const style = () => getComputedStyle(document.body);
const colours = () => ({
  background: style().getPropertyValue("--terminal-back").trim(),
  foreground: style().getPropertyValue("--terminal-ink").trim(),
  cursor: style().getPropertyValue("--accent").trim(),
  selectionBackground: "#6aa9a180",
});
const terminal = new Terminal({
  allowProposedApi: true, // wide characters of Unicode 11
  scrollback: 10_000,
  fontFamily: style().getPropertyValue("--mono").trim() || "monospace",
  fontSize: 14,
  theme: colours(),
  screenReaderMode: localStorage.getItem("terminal-reader") === "1",
  linkHandler: { activate: (_event, address) => followHidden(address), allowNonHttpProtocols: false },
  minimumContrastRatio: 4.5,
});
const fit = new FitAddon();
const search = new SearchAddon();
terminal.loadAddon(fit);
terminal.loadAddon(search);
terminal.loadAddon(new Unicode11Addon());
terminal.unicode.activeVersion = "11";
terminal.loadAddon(new WebLinksAddon((_event, address) => follow(address)));
terminal.open(place);
if (query.get("renderer") !== "dom") {
  try {
    const webgl = new WebglAddon();
    webgl.onContextLoss(() => webgl.dispose()); // falls back to the page's own elements
    terminal.loadAddon(webgl);
  } catch {
    // No WebGL here: the page's own elements do.
  }
}
fit.fit();
new ResizeObserver(() => fit.fit()).observe(place);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (terminal.options.theme = colours()));
terminal.onTitleChange((title) => {
  const said = plain(title, 80);
  document.title = `${said ? `${said} – ` : ""}${place.dataset.place} – Coder`;
});

let link = null;
let replaces = false; // the next bytes are the whole of what is kept
const address = ({ rows, columns }) => {
  const wanted = new URLSearchParams({ reconnect: session(), height: rows, width: columns, flow: "1" });
  for (const name of ["command", "container", "container_user"]) if (query.get(name)) wanted.set(name, query.get(name));
  const base = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}`;
  return `${base}/api/v2/workspaceagents/${place.dataset.agent}/pty?${wanted}`;
};

// A browser does not say why a connection was refused: the API does.
async function why() {
  let answer;
  try {
    answer = await fetch(`/api/v2/workspaceagents/${place.dataset.agent}`);
  } catch {
    return "The server cannot be reached.";
  }
  if (answer.status === 401) {
    const again = document.createElement("a");
    again.href = `/login?redirect=${encodeURIComponent(location.pathname + location.search)}`;
    again.textContent = "Sign in again";
    tell("You are signed out. ", { trouble: true });
    status.append(again);
    return null;
  }
  if (answer.status === 404) {
    tell("This workspace is not there any more, or is not yours.", { trouble: true });
    return null;
  }
  if (!answer.ok) return "The server has trouble.";
  const { status: state } = await answer.json();
  return state === "connected" ? "The connection was lost." : `The workspace's agent is ${state}.`;
}

const on = {
  opened(again, seconds) {
    replaces = true;
    tell(again ? `Reconnected in ${seconds.toFixed(1)} s` : "Connected", { fades: true });
    place.dataset.state = "open";
  },
  data(bytes, shown) {
    if (replaces) terminal.reset();
    replaces = false;
    terminal.write(bytes, shown);
  },
  async lost(wait) {
    place.dataset.state = "lost";
    tell(`The connection was lost. Trying again in ${(wait / 1000).toFixed(1)} s …`, { trouble: true });
    const current = link;
    const words = await why();
    if (link !== current || place.dataset.state !== "lost") return;
    if (words === null) {
      current.done = true;
      clearTimeout(current.timer);
    } else {
      tell(`${words} Trying again …`, { trouble: true });
    }
  },
  ended(reason) {
    place.dataset.state = "ended";
    tell(plain(reason, 123) === "the program has ended" ? "The program has ended. Press Enter for a new terminal."
      : `The terminal has ended. ${plain(reason, 123)}`, { trouble: true });
    document.getElementById("again").hidden = false;
  },
};

function begin() {
  document.getElementById("again").hidden = true;
  link = new Link(address, () => ({ rows: terminal.rows, columns: terminal.cols }), on);
}

function anew() {
  query.set("reconnect", fresh());
  terminal.reset();
  begin();
}
document.getElementById("again").addEventListener("click", () => {
  anew();
  terminal.focus();
});

terminal.onData((text) => {
  if (link?.done && place.dataset.state === "ended") {
    if (text === "\r") anew();
  } else {
    link?.type(text);
  }
});
terminal.onBinary((text) => link?.type(text));
terminal.onResize(() => link?.resize());

const keys = {
  C: () => terminal.hasSelection() && navigator.clipboard?.writeText(terminal.getSelection()),
  F: () => find(true),
};
terminal.attachCustomKeyEventHandler((event) => {
  if (event.key === "Enter" && event.shiftKey && !event.ctrlKey && !event.altKey) {
    if (event.type === "keydown") link?.type("\x1b\r");
    event.preventDefault();
    return false;
  }
  if (event.ctrlKey && event.shiftKey && event.key.toUpperCase() === "V") return false; // the browser pastes
  const act = event.ctrlKey && event.shiftKey && !event.altKey && keys[event.key.toUpperCase()];
  if (!act) return true;
  event.preventDefault();
  if (event.type === "keydown") act();
  return false;
});

const finder = document.getElementById("find");
const wanted = document.getElementById("find-text");
function find(open) {
  finder.hidden = !open;
  if (open) wanted.focus();
  else {
    search.clearDecorations();
    terminal.focus();
  }
}
document.getElementById("find-open").addEventListener("click", () => find(finder.hidden));
document.getElementById("find-close").addEventListener("click", () => find(false));
wanted.addEventListener("input", () => search.findPrevious(wanted.value, { incremental: true }));
wanted.addEventListener("keydown", (event) => {
  if (event.key === "Escape") find(false);
  if (event.key === "Enter") search[event.shiftKey ? "findNext" : "findPrevious"](wanted.value);
});
finder.addEventListener("submit", (event) => event.preventDefault());

const reader = document.getElementById("reader");
const showReader = () => reader.setAttribute("aria-pressed", String(terminal.options.screenReaderMode));
reader.addEventListener("click", () => {
  terminal.options.screenReaderMode = !terminal.options.screenReaderMode;
  localStorage.setItem("terminal-reader", terminal.options.screenReaderMode ? "1" : "0");
  showReader();
});
showReader();

// Another site may lead here with a command in the address: nothing runs that nobody of here asked for.
async function mayBegin() {
  const command = query.get("command");
  if (!command || sessionStorage.getItem(`run ${query.get("reconnect")}`) === command) return true;
  // The workspace's page has buttons with commands. Any other page of ours may have been led here itself: a login is.
  const ours = document.referrer.replace(/[?#].*/, "") === location.origin + document.querySelector("h1 a").pathname;
  if (!ours && !(await ask("This address asks to run a command in your workspace. Run it?", command, "Run"))) return false;
  sessionStorage.setItem(`run ${session()}`, command);
  return true;
}

session();
if (await mayBegin()) {
  begin();
  terminal.focus();
} else {
  tell("Nothing was run.", { trouble: true });
}
setInterval(() => {
  if (place.dataset.state !== "open" || document.visibilityState !== "visible") return;
  fetch(`/api/v2/workspaces/${place.dataset.workspace}/usage`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ agent_id: place.dataset.agent, app_name: "reconnecting-pty" }),
  }).catch(() => {});
}, USED_EVERY);
