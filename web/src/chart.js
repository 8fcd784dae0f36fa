// A workspace's charts: latency of each leg over the last minutes, and throughput while a speed test runs.
import uPlot from "uplot";
import { distance } from "./lib/measure.js";
import { speedtest } from "./lib/speedtest.js";

const KEPT = 120;
const EVERY = 3000;
const SHOWN = 180;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function plot(element, unit, names, shown) {
  const paints = [colour("--accent"), colour("--second")];
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  return new uPlot(
    {
      width: Math.max(element.clientWidth, 240),
      height: 180,
      cursor: { y: false },
      legend: { live: false },
      scales: { x: { range: (_plot, _low, high) => [high - shown, high] }, y: { range: (_plot, _low, high) => [0, Math.max(high || 0, 1) * 1.15] } },
      series: [{}, ...names.map((label, index) => ({ label, stroke: paints[index], width: 2, spanGaps: true, value: (_p, v) => (v == null ? "–" : `${v.toFixed(1)} ${unit}`) }))],
      axes: [{ ...axis, space: 110, values: (_plot, values) => values.map((value) => new Date(value * 1000).toLocaleTimeString([], { hour12: false })) }, { ...axis, size: 88, values: (_plot, values) => values.map((value) => `${value} ${unit}`) }],
    },
    [[], ...names.map(() => [])],
    element,
  );
}

function chart(element, unit, names, shown) {
  let made = plot(element, unit, names, shown);
  const data = [[], ...names.map(() => [])];
  new ResizeObserver(() => made.setSize({ width: Math.max(element.clientWidth, 240), height: 180 })).observe(element);
  document.addEventListener("theme", () => {
    made.destroy();
    made = plot(element, unit, names, shown);
    made.setData(data);
  });
  return {
    add(values) {
      data[0].push(Date.now() / 1000);
      values.forEach((value, index) => data[index + 1].push(value ?? null));
      if (data[0].length > KEPT) data.forEach((each) => each.shift());
      made.setData(data);
    },
    clear() {
      data.forEach((each) => (each.length = 0));
    },
  };
}

async function workspaceLeg(route) {
  const answer = await fetch(route, { headers: { Accept: "application/json" } });
  if (!answer.ok) return null;
  const found = await answer.json();
  return found.server?.latency_ms ?? found.home?.latency_ms ?? null;
}

const box = document.querySelector("[data-chart]");
if (box) {
  let latency;
  const look = async () => {
    if (document.hidden) return;
    const legs = await Promise.allSettled([distance("/latency-check", 2), workspaceLeg(box.dataset.chart)]);
    if (!latency) {
      if (legs[1].value == null) return; // nobody at the other end yet
      box.hidden = false;
      latency = chart(box.querySelector("[data-latency-chart]"), "ms", ["browser to server", "server to workspace"], SHOWN);
    }
    latency.add(legs.map((leg) => (leg.status === "fulfilled" ? leg.value : null)));
  };
  look();
  setInterval(look, EVERY);

  const button = box.querySelector("[data-speedtest]");
  const told = box.querySelector("[data-speed]");
  const place = box.querySelector("[data-speed-chart]");
  let rates;
  button.addEventListener("click", async () => {
    button.disabled = true;
    place.hidden = false;
    rates ??= chart(place, "Mbit/s", ["to this browser", "from this browser"], 12);
    rates.clear();
    told.textContent = "Measuring …";
    try {
      told.textContent = await speedtest(box.dataset.chart.replace(/network$/, "speedtest"), (down, up) => rates.add([down, up]));
    } catch (fault) {
      told.textContent = `The speed test ended early: ${fault.message}`;
    }
    button.disabled = false;
  });
}
