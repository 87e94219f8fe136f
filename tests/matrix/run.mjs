// Other people's clients read streams of hero-sse, over real sockets. Prints one table. Fails if a cell is not what
// table.mjs expects, also if an expected fault does not happen.
//
//   run.mjs [--often] [NAME..]      NAME is a part of a client's name; --often takes those that are marked so

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";

import { Server, launch, program, sleep } from "../browser/trial.mjs";
import { scenes } from "./scenes.mjs";
import { COLUMNS, clients, notes } from "./table.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const PYTHON = process.env.CLIENTS_PYTHON ?? here("venv/bin/python");
const RUST = process.env.CLIENTS_RUST ?? here("../../target/matrix/debug");
const LIMIT = 15_000; // of one wait
const AT_ONCE = 6; // runs; most of their time is waiting
const RETRY = 4_000; // longer than the default of each client; the server adds up to a half

const folder = mkdtempSync(join(tmpdir(), "hero-sse-clients-"));
let browser;

/** Waits until something holds. Returns whether it did. */
async function settles(holds, limit = LIMIT) {
  for (const end = Date.now() + limit; Date.now() < end; await sleep(20)) if (holds()) return true;
  return holds();
}

/** Calls `line` for each line of JSON, and `other` for each other one. */
function eachLine(stream, line, other = () => {}) {
  let rest = "";
  stream.setEncoding("utf8").on("data", (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const text of lines) {
      try {
        line(JSON.parse(text));
      } catch {
        other(text);
      }
    }
  });
}

// ---- A server and a client

class Stage extends Server {
  constructor(settings) {
    const set = ["HeartbeatInterval=300ms", "DrainJitter=off", "DrainDelay=off", ...settings].flatMap((setting) => ["--set", setting]);
    super(["--scenes", join(folder, "scenes.json"), ...set], { command: "scenes" });
    this.log = [];
  }

  async start() {
    await super.start();
    eachLine(this.child.stdout, (line) => this.log.push(line));
    return this;
  }

  requests = (since = 0) => this.log.filter(({ status, at }) => status && at >= since);
}

/** What a client reports: `{open}`, `{event, id, data}`, `{cut}`, `{error, status}`, `{end}`. */
class Report {
  lines = [];
  stderr = "";
  add = (line) => this.lines.push(line);
  events = () => this.lines.filter(({ event, data }) => event !== undefined || data !== undefined);
  ended = () => this.lines.some(({ end, exit }) => end || exit !== undefined);
  error = () => this.lines.find(({ error, exit }) => error !== undefined || exit);
}

// Datastar's package names its own files like this.
const ALIAS = { "~": here("node_modules/@starfederation/datastar/dist") };
const bundles = new Map();
async function bundle(driver) {
  const { build } = await import("esbuild");
  const built = await build({ entryPoints: [here(`drivers/${driver}`)], bundle: true, write: false, format: "iife", globalName: "driver", logLevel: "error", alias: ALIAS });
  return built.outputFiles[0].text;
}

const commands = {
  node: (driver, task) => [process.execPath, [here("drivers/node.mjs"), `./${driver}`, JSON.stringify(task)]],
  python: (driver, task) => [program(PYTHON, "The Python of the clients", "Call ./tests/clients"), [here(`drivers/${driver}`), JSON.stringify(task)]],
  rust: (driver, task) => [program(join(RUST, driver), "The Rust client", "Call ./tests/clients"), [JSON.stringify(task)]],
};

/** Starts a client. Returns what ends it. */
async function start({ in: place, driver }, task, report) {
  if (place === "page") {
    if (!bundles.has(driver)) bundles.set(driver, bundle(driver));
    const script = await bundles.get(driver);
    const context = await browser.newContext();
    const page = await context.newPage();
    const home = new URL("/page", task.url).href;
    page.on("pageerror", (error) => (report.stderr += `${error}\n`));
    page.on("console", (message) => (report.stderr += `${message.text()}\n`));
    await page.route(home, (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html><link rel=icon href=data:,><title>-</title><body>" }));
    await page.exposeFunction("report", report.add);
    await page.goto(home);
    await page.addScriptTag({ content: script });
    await page.evaluate((task) => void Promise.resolve(driver.default(task, report)).catch((error) => report({ end: true, error: String(error), status: error.status })), task);
    return () => context.close();
  }
  const [command, args] = commands[place](driver, task);
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  const gone = new Promise((done) => child.once("close", (exit) => (report.add({ exit }), done())));
  eachLine(child.stdout, report.add, (text) => (report.stderr += `${text}\n`));
  child.stderr.setEncoding("utf8").on("data", (text) => (report.stderr += text));
  child.once("error", (error) => (report.stderr += error));
  return () => (child.kill("SIGKILL"), gone);
}

// ---- What is judged

/** Compares what a client got with what there was. */
function compare(got, want) {
  const text = (list) => list.map((value) => JSON.stringify(value));
  const [seen, all] = [text(got), text(want)];
  if (isDeepStrictEqual(seen, all)) return "ok";
  if (new Set(seen).size < seen.length) return "doubled";
  if (seen.some((value) => !all.includes(value))) return "differs";
  return seen.every((value, index) => value === all[index]) ? "stops" : "lost";
}

/** What a client reports of a scene's events, in the fields that it can report. */
function contents(client, report) {
  const { protocol, fields = ["event", "id", "data"] } = client;
  // A stream for an EventSource also has the server's own events, and the end mark in its last id.
  const own = client.post ? report.events() : report.events().filter(({ event }) => !String(event).startsWith("hero."));
  for (const event of own) if (!client.post && event.id) event.id = event.id.replace(/;hero\.end$/, "");
  return own.map((event) => (protocol ? event.data : Object.fromEntries(fields.map((field) => [field, event[field]]))));
}

function wanted(client, scene) {
  const { protocol, fields = ["event", "id", "data"] } = client;
  const events = scenes[scene].content;
  return protocol ? events : events.map((event) => Object.fromEntries(fields.map((field) => [field, field === "event" ? (event.event ?? "message") : event[field]])));
}

/** The scene of a kind, in the protocol that the client speaks. `count` stands for an answer that takes its time. */
function sceneOf({ protocol, dialect }, kind) {
  if (protocol) return `${protocol}-${{ shapes: "whole", three: "whole", count: "slow" }[kind] ?? kind}`;
  return dialect ? `${dialect}-${kind}` : kind;
}

/** Runs a client on a scene: `act` does what happens meanwhile, and returns the verdicts. */
async function run(client, { kind, access = "", settings = [] }, act) {
  const scene = sceneOf(client, kind);
  const stage = await new Stage([...settings, ...(client.settings ?? [])]).start();
  const base = `${stage.url}/${client.post ? "post" : "get"}${access}/${scene}`;
  const report = new Report();
  const task = { url: `${base}/x`, base, method: client.post ? "POST" : "GET", names: ["named", "done"], setting: client.setting, token: access === "-private" ? "bad" : "good" };
  if (client.post) task.body = "{}";
  let stop = async () => {};
  try {
    const begin = async () => (stop = await start(client, task, report));
    const want = scenes[scene].content && wanted(client, scene);
    const got = () => contents(client, report);
    const verdicts = await act({ stage, report, begin, want, got });
    return { verdicts, report, stage };
  } finally {
    await stop();
    await stage.stop("SIGKILL");
  }
}

/** Lets something happen to the server while the client reads forty numbers. */
const interrupted = (column, settings, happens, least = 8) => (client) =>
  run(client, { kind: "count", settings }, async ({ stage, report, begin, got, want }) => {
    await begin();
    if (!(await settles(() => got().length >= least))) return { [column]: "silent" };
    const since = Date.now();
    await happens(stage);
    await settles(() => got().length >= want.length || report.ended());
    await sleep(200);
    const [first] = stage.requests(since);
    const took = first ? first.at - since : undefined;
    const { jitter = 0 } = client;
    const [shortest, longest] = [RETRY * (1 - jitter) - 100, 1.5 * RETRY * (1 + jitter) + 3_000];
    const retry = took === undefined ? "stops" : took < shortest ? "sooner" : took > longest ? "later" : "ok";
    return { [column]: compare(got(), want), ...(column === "kill" ? { retry, took } : {}) };
  });

const restart = (signal) => async (stage) => {
  await stage.stop(signal);
  await stage.start();
};

/** Reads a whole stream, and watches what the client does after the last event. */
const reads = (client) =>
  run(client, { kind: "shapes", settings: ["Retry=500ms"] }, async ({ stage, report, begin, got, want }) => {
    await begin();
    await settles(() => got().length >= want.length || report.ended());
    const since = Date.now();
    await sleep(300);
    await settles(report.ended, 4_000);
    await sleep(700);
    const again = stage.requests(since).length;
    const verdict = compare(got().slice(0, want.length), want);
    const end = again > 1 ? "loops" : got().length > want.length ? "doubled" : client.post && (report.error() || !report.ended()) ? "error" : "ok";
    return { reads: verdict, last: end };
  });

/** A server that is asked to stop lets a posted answer finish. */
const finishes = (client) =>
  run(client, { kind: "count" }, async ({ stage, report, begin, got, want }) => {
    await begin();
    if (!(await settles(() => got().length >= 1 || report.ended()))) return { drain: "silent" };
    const stopped = stage.stop("SIGTERM");
    await settles(report.ended);
    await stopped;
    return { drain: got().length < want.length && !report.error() ? "quiet" : compare(got(), want) };
  });

const broken = (client) =>
  run(client, { kind: "cut", settings: ["Retry=500ms"] }, async ({ report, begin, got, want }) => {
    await begin();
    await settles(() => report.ended() || report.error());
    await sleep(200);
    const verdict = compare(got(), want);
    return { cut: verdict !== "ok" ? verdict : report.error() ? "ok" : report.ended() ? "quiet" : "silent" };
  });

const reported = (client) =>
  run(client, { kind: "own" }, async ({ report, begin }) => {
    await begin();
    await settles(() => report.ended() || report.error());
    return { own: JSON.stringify(report.lines).includes("the model failed") ? "ok" : report.error() ? "other" : "quiet" };
  });

const refused = (client) =>
  run(client, { kind: "shapes", access: "-private", settings: ["Retry=500ms"] }, async ({ stage, report, begin }) => {
    await begin();
    await settles(() => stage.requests().length);
    await settles(() => report.ended() || report.error(), 5_000);
    await sleep(1_500);
    if (stage.requests().length > 1) return { refused: "loops" };
    return { refused: report.error() || (!client.post && report.ended()) ? "ok" : report.ended() ? "quiet" : "silent" };
  });

/** The one slot is taken, and given back after a second. */
const limited = (client) =>
  run(client, { kind: "three", access: "-limited", settings: ["Retry=500ms"] }, async ({ stage, report, begin, got, want }) => {
    const other = new AbortController();
    const init = client.post ? { method: "POST", body: "{}" } : {};
    const first = await fetch(`${stage.url}/${client.post ? "post" : "get"}-limited/never/x`, { ...init, signal: other.signal });
    await first.body.getReader().read();
    await begin();
    await settles(() => stage.requests().length > 1);
    await sleep(500);
    other.abort();
    const whole = () => isDeepStrictEqual(got(), want);
    await settles(() => whole() || report.ended() || (client.post && report.error()), 8_000);
    if (whole()) return { limited: "ok" };
    const error = report.error();
    return { limited: error?.status >= 400 ? "ok" : error ? "other" : report.ended() ? "quiet" : "stops" };
  });

/** The runs of a client, by the columns that they fill. */
const RUNS = [
  [["reads", "last"], () => true, reads],
  [["kill", "retry"], ({ post }) => !post, interrupted("kill", [`Retry=${RETRY}ms`], restart("SIGKILL"))],
  [["drain"], ({ post }) => !post, interrupted("drain", ["Retry=500ms"], restart("SIGTERM"))],
  [["drain"], ({ post }) => post, finishes],
  [["age"], ({ post }) => !post, interrupted("age", ["Retry=500ms", "MaxAge=700ms"], async () => {}, 1)],
  [["cut"], ({ post }) => post, broken],
  [["own"], ({ protocol }) => protocol, reported],
  [["refused"], () => true, refused],
  [["limited"], () => true, limited],
];

// ---- The table

const names = process.argv.slice(2).filter((argument) => !argument.startsWith("--"));
const often = process.argv.includes("--often");
const chosen = clients.filter((client) => (!often || client.often) && (!names.length || names.some((name) => client.name.includes(name))));
const expected = (client, column) => client.expects?.[column] ?? "ok";
const NA = "n.a.";

/** One run, with its verdicts for the columns that apply. */
async function job(client, columns, act) {
  const began = Date.now();
  let outcome;
  try {
    outcome = await act(client);
  } catch (error) {
    outcome = { verdicts: Object.fromEntries(columns.map((column) => [column, "failed"])), failure: error };
  }
  const { verdicts, report, stage, failure } = outcome;
  const wrong = columns.filter((column) => {
    const expectation = expected(client, column);
    return expectation !== NA && (expectation.sees ?? expectation) !== verdicts[column];
  });
  client.cells = { ...client.cells, ...Object.fromEntries(columns.map((column) => [column, verdicts[column] ?? "silent"])) };
  if (process.env.CLIENTS_VERBOSE || wrong.length) {
    const lines = report?.lines.map((line) => JSON.stringify(line)) ?? [];
    const shown = lines.length > 40 ? [...lines.slice(0, 20), `.. ${lines.length - 40} more`, ...lines.slice(-20)] : lines;
    const expectations = wrong.map((column) => `${column}: ${verdicts[column]}, expected ${expected(client, column).sees ?? expected(client, column)}`);
    console.log(`\n${client.name}: ${expectations.join("; ") || columns} (${Date.now() - began} ms) ${JSON.stringify(verdicts)}`);
    console.log([...shown, ...(stage?.log ?? []).map((line) => JSON.stringify(line)), report?.stderr, failure?.stack].filter(Boolean).join("\n").replace(/^/gm, "    "));
  }
  return wrong.length;
}

const jobs = chosen.flatMap((client) =>
  RUNS.filter(([columns, applies]) => applies(client) && columns.some((column) => expected(client, column) !== NA)).map(([columns, , act]) => [client, columns, act]),
);
writeFileSync(join(folder, "scenes.json"), JSON.stringify(scenes));
let wrong = 0;
try {
  if (chosen.some((client) => client.in === "page")) browser = await launch();
  const worker = async () => {
    for (let next; (next = jobs.shift()); ) {
      const cells = await job(...next);
      wrong += cells;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
} finally {
  await browser?.close();
  rmSync(folder, { recursive: true, force: true });
}

const used = [];
const mark = (note) => `[${(used.includes(note) ? used : [...used, note]).indexOf(note) + 1}]`;
function cell(client, column) {
  const verdict = client.cells?.[column];
  const expectation = expected(client, column);
  if (expectation === NA || verdict === undefined) return "";
  if (verdict !== (expectation.sees ?? expectation)) return `**${verdict}**`;
  if (verdict === "ok") return "ok";
  const shown = mark(expectation.note);
  if (!used.includes(expectation.note)) used.push(expectation.note);
  return `${verdict} ${shown}`;
}
const line = (cells) => `| ${cells.join(" | ")} |`;
console.log(`\n${line(["client", ...Object.values(COLUMNS)])}\n${line(["---", ...Object.keys(COLUMNS).map(() => "---")])}`);
for (const client of chosen) console.log(line([client.name, ...Object.keys(COLUMNS).map((column) => cell(client, column))]));
used.forEach((note, index) => console.log(`\n[${index + 1}] ${notes[note]}`));
if (wrong) console.log(`\n${wrong} cells are not as expected; they are in bold.`);
process.exit(wrong ? 1 : 0);
