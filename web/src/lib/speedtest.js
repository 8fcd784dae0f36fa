// Throughput between this browser and the server, and from the server to the workspace where the server can measure it.

const PIECE = 65536;
const AHEAD = 8 * PIECE;

const mbits = (bytes, milliseconds) => (bytes * 8) / 1000 / Math.max(milliseconds, 1);
const speed = (rate) => (rate >= 1000 ? `${(rate / 1000).toFixed(2)} Gbit/s` : `${rate.toFixed(0)} Mbit/s`);

export async function speedtest(agentRoute, onRate) {
  const down = await run("down", (rate) => onRate(rate, null));
  const up = await run("up", (rate) => onRate(null, rate));
  const first = `Browser and server: ${speed(down)} down, ${speed(up)} up.`;
  const answer = await fetch(agentRoute, { method: "POST" });
  if (!answer.ok) return first;
  const found = await answer.json();
  return `${first} Server and workspace: ${speed(found.down_mbits)} down, ${speed(found.up_mbits)} up, ${found.direct ? "direct" : "relayed"}.`;
}

/** Carries bytes one way over a WebSocket until the server ends it; resolves to the mean rate. */
function run(direction, onRate) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`/api/v2/speedtest?direction=${direction}`.replace(/^/, location.origin.replace(/^http/, "ws")));
    socket.binaryType = "arraybuffer";
    const piece = crypto.getRandomValues(new Uint8Array(PIECE));
    let bytes = 0;
    let begin = 0;
    let shown = { bytes: 0, at: 0 };
    let timers = [];
    const sample = () => {
      const now = performance.now();
      onRate(mbits(bytes - shown.bytes, now - shown.at));
      shown = { bytes, at: now };
    };
    const feed = () => {
      while (socket.readyState === WebSocket.OPEN && socket.bufferedAmount < AHEAD) {
        socket.send(piece);
      }
    };
    socket.onopen = () => {
      begin = performance.now();
      shown = { bytes: 0, at: begin };
      timers = [setInterval(sample, 250)];
      if (direction === "up") timers.push(setInterval(feed, 2));
    };
    socket.onmessage = ({ data }) => {
      // The server counts what reached it; what it sends is counted here.
      bytes = typeof data === "string" ? JSON.parse(data).bytes : bytes + data.byteLength;
    };
    socket.onclose = ({ code, reason }) => {
      timers.forEach(clearInterval);
      if (code === 1000 && begin) resolve(mbits(bytes, performance.now() - begin));
      else reject(new Error(reason || "the connection broke"));
    };
  });
}
