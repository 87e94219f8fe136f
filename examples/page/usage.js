// The usage gauge. A reading is state, not history: only the newest one counts, and the chart keeps two minutes of them.

import { $, el } from "./dom.js";

const CHART_MS = 120_000;
const MAX_STEP_MS = 2_500; // no line joins readings further apart than this
const REDRAW_MS = 1_500; // the chart moves on without readings too

const gib = (bytes) => (bytes / 2 ** 30).toFixed(bytes < 10 * 2 ** 30 ? 2 : 1);

let readings = []; // { at, cpu, memory }: the server's time, percent
let clockOffset = 0; // the server's clock minus this one's
let drawnAt = 0;

function clear() {
  readings = [];
  clockOffset = 0;
  $("#cpu-now").textContent = $("#memory-now").textContent = "–";
  $("#memory-of").textContent = "";
  $("#cores").replaceChildren();
  $("#cores-label").textContent = "Cores";
  draw();
}

function show({ at, cpu, cpu_total, memory_used, memory_total }) {
  const time = Date.parse(at);
  clockOffset = time - Date.now();
  readings.push({ at: time, cpu: cpu_total, memory: memory_total > 0 ? (100 * memory_used) / memory_total : 0 });
  while (readings[0].at < time - CHART_MS - MAX_STEP_MS) readings.shift();
  $("#cpu-now").textContent = `${cpu_total.toFixed(1)} %`;
  $("#memory-now").textContent = `${gib(memory_used)} GiB`;
  $("#memory-of").textContent = ` of ${gib(memory_total)}`;
  const cores = $("#cores");
  if (cores.children.length !== cpu.length) {
    cores.replaceChildren(...cpu.map(() => el("i")));
    $("#cores-label").textContent = cpu.length === 1 ? "1 core" : `${cpu.length} cores`;
  }
  cpu.forEach((use, core) => cores.children[core].style.setProperty("--use", Math.min(100, use)));
  draw();
}

function draw() {
  drawnAt = performance.now();
  const end = Math.max(Date.now() + clockOffset, readings.at(-1)?.at ?? 0);
  const x = ({ at }) => (120 - (end - at) / 1000).toFixed(2);
  const y = (percent) => (100 - Math.max(0, Math.min(100, percent))).toFixed(2);
  let cpu = "", memory = "", area = "", before = null;
  const closeArea = () => { if (before) area += `V100Z`; };
  for (const reading of readings) {
    const joined = before && reading.at - before.at <= MAX_STEP_MS;
    if (!joined) closeArea();
    cpu += `${joined ? "L" : "M"}${x(reading)} ${y(reading.cpu)}`;
    memory += `${joined ? "L" : "M"}${x(reading)} ${y(reading.memory)}`;
    area += `${joined ? "L" : `M${x(reading)} 100L`}${x(reading)} ${y(reading.cpu)}`;
    before = reading;
  }
  closeArea();
  for (const [id, path] of [["cpu-line", cpu], ["memory-line", memory], ["cpu-area", area]]) $(`#${id}`).setAttribute("d", path);
  $("#chart-empty").hidden = readings.length > 0;
}

export const usage = {
  clear,
  tick(now) {
    if (now - drawnAt > REDRAW_MS) draw();
  },
  stream: { path: "/api/v1/usage/stream", permission: "usage.read", events: { usage: show } },
};
