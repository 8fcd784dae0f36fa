// The connection of a terminal: opened again whenever it ends, at the pace of whoever shows what comes.
const FIRST = 250, LAST = 8000;
const TELL_EVERY = 64 * 1024; // bytes shown before the server hears of it; its window is several times that
const ASLEEP = 10_000; // a timer later than this: the machine slept, and the connection has not noticed
const PIECE = 16 * 1024; // characters in one message

const encoder = new TextEncoder();

export class Link {
  // `on`: opened(again, seconds), data(bytes, shown), lost(wait), ended(reason), refused(words) -> whether to go on
  constructor(address, size, on) {
    this.address = address;
    this.size = size;
    this.on = on;
    this.wait = FIRST;
    this.lostAt = null;
    this.done = false;
    addEventListener("online", () => this.now());
    addEventListener("offline", () => this.drop());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.now());
    this.watchSleep();
    this.open();
  }

  open() {
    clearTimeout(this.timer);
    this.timer = null;
    const socket = (this.socket = new WebSocket(this.address(this.size())));
    socket.binaryType = "arraybuffer";
    let shown = 0, told = 0, opened = false;
    socket.onopen = () => {
      opened = true;
      this.wait = FIRST;
      this.resize();
      this.on.opened(this.lostAt !== null, this.lostAt === null ? 0 : (performance.now() - this.lostAt) / 1000);
      this.lostAt = null;
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket) return;
      const bytes = new Uint8Array(data);
      this.on.data(bytes, () => {
        shown += bytes.length;
        if (shown - told >= TELL_EVERY && socket.readyState === WebSocket.OPEN) {
          told = shown;
          socket.send(JSON.stringify({ shown }));
        }
      });
    };
    socket.onclose = (event) => {
      if (socket !== this.socket || this.done) return;
      if (event.code === 1000) return this.end(event.reason);
      this.lose(opened ? "" : event.reason);
    };
  }

  lose() {
    if (this.timer || this.done) return;
    this.lostAt ??= performance.now();
    const wait = this.wait * (0.8 + Math.random() * 0.4);
    this.wait = Math.min(this.wait * 2, LAST);
    this.on.lost(wait);
    this.timer = setTimeout(() => this.open(), wait);
  }

  drop() {
    const socket = this.socket;
    this.socket = null;
    socket?.close();
    this.lose();
  }

  now() {
    if (this.timer && !this.done) this.open();
  }

  end(reason) {
    this.done = true;
    clearTimeout(this.timer);
    this.timer = null;
    this.on.ended(reason);
  }

  watchSleep() {
    let before = Date.now();
    setInterval(() => {
      const now = Date.now();
      if (now - before > ASLEEP && !this.done && !this.timer) {
        this.drop();
        this.now();
      }
      before = now;
    }, 2000);
  }

  say(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(encoder.encode(JSON.stringify(message)));
    return true;
  }

  type(text) {
    let start = 0;
    while (start < text.length) {
      let end = Math.min(start + PIECE, text.length);
      if (end < text.length && /[\ud800-\udbff]/.test(text[end - 1])) end -= 1; // a pair stays together
      if (!this.say({ data: text.slice(start, end) })) return;
      start = end;
    }
  }

  resize() {
    const { rows, columns } = this.size();
    this.say({ height: rows, width: columns });
  }
}
