// The build feed. A failed build is an event, and the stream goes on. A finished build is the stream's last event.

import { $, el, plural, setText } from "./dom.js";

const MAX_BUILDS = 20;

const list = $("#build-list");
const emptyNote = $(".empty", list);
const known = new Map(); // build number -> { row, part, startedAt, artifacts, fresh, warnings, errors }

function clear() {
  known.clear();
  list.replaceChildren(emptyNote);
  say("");
}

/** Shows a message beside the button; without one, what the button does. */
export function say(sentence) {
  setText($("#build-message"), sentence || "Compiles a sample of three crates with cargo.");
}

/** Returns the row of a build, and makes it at the build's first event. */
function rowOf(number) {
  const existing = known.get(number);
  if (existing) return existing;
  const part = {
    phase: el("span", { class: "phase" }), time: el("span"), tally: el("span"), command: el("code", { class: "command" }),
    artifacts: el("p", { class: "artifacts" }), diagnostics: el("div", { class: "diagnostics" }),
  };
  const row = el("li", { "data-build": number },
    el("div", { class: "build-line" }, el("b", {}, `Build ${number}`), part.phase, part.time, part.tally),
    el("div", { class: "progress", "aria-hidden": "true" }), part.command, part.artifacts, part.diagnostics);
  const build = { row, part, startedAt: 0, artifacts: 0, fresh: 0, warnings: 0, errors: 0 };
  known.set(number, build);
  emptyNote.remove();
  list.prepend(row);
  if (known.size > MAX_BUILDS) {
    const [oldest] = known.keys();
    known.get(oldest).row.remove();
    known.delete(oldest);
  }
  return build;
}

function setPhase(build, phase, text) {
  build.row.dataset.phase = phase;
  build.part.phase.textContent = text;
}

const isUnderWay = ({ row }) => ["queued", "building"].includes(row.dataset.phase);

/** Marks builds whose end this page did not see. */
function markUnknown() {
  for (const build of known.values()) {
    if (isUnderWay(build)) setPhase(build, "unknown", "result unknown");
    build.startedAt = 0;
  }
}

function queued({ build: number, broken }) {
  known.get(number)?.row.remove(); // the server sends this build from its first event again
  known.delete(number);
  markUnknown(); // one build at a time: any other has ended, unseen
  setPhase(rowOf(number), "queued", broken ? "queued, with an error" : "queued");
}

function started({ build: number, command }) {
  const build = rowOf(number);
  build.startedAt = performance.now();
  build.part.command.textContent = build.part.command.title = command;
  setPhase(build, "building", "building");
}

function artifact({ build: number, name, fresh }) {
  const build = rowOf(number);
  build.artifacts += 1;
  build.fresh += fresh ? 1 : 0;
  const cached = build.fresh ? `, ${build.fresh} unchanged` : "";
  build.part.artifacts.textContent = `${plural(build.artifacts, "artifact")}${cached}; latest: ${name}`;
}

function diagnostic({ build: number, level, text, rendered, file, line }) {
  const build = rowOf(number);
  const error = level.startsWith("error");
  build[error ? "errors" : "warnings"] += 1;
  const tally = [build.errors && plural(build.errors, "error"), build.warnings && plural(build.warnings, "warning")];
  build.part.tally.textContent = tally.filter(Boolean).join(", ");
  const where = file ? `${file}${line ? `:${line}` : ""}` : "";
  const details = el("details", { "data-level": error ? "error" : level },
    el("summary", {}, el("span", { class: "level" }, level), " ", text, " ", el("span", { class: "where" }, where)),
    el("pre", { tabindex: "0" }, rendered || text));
  if (error) build.part.diagnostics.prepend(details); // a failed build has many warnings, and an error is why it failed
  else build.part.diagnostics.append(details);
}

function ended(number, phase, seconds) {
  const build = rowOf(number);
  build.startedAt = 0;
  build.part.time.textContent = `${seconds.toFixed(1)} s`;
  setPhase(build, phase, phase);
  return build;
}

function failed({ build: number, seconds, reason }) {
  const build = ended(number, "failed", seconds);
  if (reason) build.part.artifacts.textContent = reason;
  say("Failed. That is an event like any other: the stream goes on.");
}

function finished({ build: number, seconds }) {
  ended(number, "finished", seconds);
  say("");
}

export const builds = {
  clear,
  /** Counts the running time. `live` is false while no event can arrive. */
  tick(now, live) {
    if (!live) return;
    for (const { startedAt, part } of known.values()) {
      if (startedAt) part.time.textContent = `${((now - startedAt) / 1000).toFixed(1)} s`;
    }
  },
  isRunning: () => [...known.values()].some(isUnderWay),
  stream: {
    path: "/api/v1/builds/stream",
    permission: "builds.read",
    lastEvent: "finished",
    afterLast: "The next build opens it again.",
    events: { queued, started, artifact, diagnostic, failed, finished },
    onGap(missed) {
      markUnknown();
      say(missed === null ? "The server does not know this page's position. Events may be missing." : `${plural(missed, "event")} missing.`);
    },
  },
};
