// The tail of the audit log. After a restart the server sends the last lines once more: each line has its position in
// the file as `place`, and by it the page recognizes lines that it shows already.

import { $, clock, el, plural } from "./dom.js";

const MAX_ROWS = 200;

const rows = $("#audit-rows");
let gapNote = null; // the text of the last gap, until a line shows whether anything is missing

function clear() {
  rows.replaceChildren(el("tr", { class: "empty", role: "row" }, el("td", { colspan: "4", role: "cell" }, "No lines yet")));
  gapNote = null;
}

function add(row) {
  $(".empty", rows)?.remove();
  rows.prepend(row);
  while (rows.children.length > MAX_ROWS) rows.lastElementChild.remove();
}

/** Adds the row of a line, unless the page shows that line already: then nothing was missing in the gap. */
function addLine(line, row) {
  row.line = JSON.stringify(line); // contains `place`: no two lines are equal
  if (gapNote && [...rows.children].some(({ line }) => line === row.line)) {
    gapNote.textContent = "The server restarted. No line is missing.";
  } else {
    gapNote = null;
    add(row);
  }
}

function showRecord(record) {
  const { place, time, method, path, status, subject } = record;
  const at = new Date(time);
  const cell = (attributes, ...children) => el("td", { role: "cell", ...attributes }, ...children);
  addLine(record, el("tr", { class: "new", role: "row", "data-place": place },
    cell({ class: "time", title: time }, Number.isNaN(at.valueOf()) ? "–" : clock.format(at)),
    cell({ class: `status s${String(status)[0]}` }, String(status)),
    cell({ class: "request", title: `${method} ${path}` }, el("span", { class: "method" }, `${method} `), path),
    cell({ class: "subject", title: subject ?? "no token" }, subject ?? "–")));
}

/** A row with one cell across all columns. */
function wideRow(kind, text, place = "") {
  return el("tr", { class: `new ${kind}`, role: "row", "data-place": place }, el("td", { colspan: "4", role: "cell" }, text));
}

function addNote(text) {
  const row = wideRow("gap", text);
  add(row);
  return row.firstElementChild;
}

function onGap(missed) {
  gapNote = addNote(missed === null ? "The server does not know this page's position. Lines may be missing." : `${plural(missed, "line")} missing.`);
}

export const audit = {
  clear,
  tick() {},
  stream: {
    path: "/api/v1/audit/stream",
    permission: "audit.read",
    events: {
      audit: showRecord,
      "audit-raw": (line) => addLine(line, wideRow("raw", line.line, line.place)),
      "audit-gap": ({ reason }) => addNote(`Lines are missing: ${reason}.`),
    },
    onGap,
  },
};
