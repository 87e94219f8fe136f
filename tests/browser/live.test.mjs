// The live example in a real Chromium: what a person sees on its page, over real sockets, while tokens expire and
// servers die. Every wait is bounded, and a wait that runs out says what the page showed instead.
//
//   cargo build --bin live && cd tests/browser && npm ci && LIVE_BIN=../../target/debug/live npm test

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { accessSync, appendFileSync, constants, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";

const SECRET = "a secret for the browser test, known to nobody else";
const OPTIONS = `[SseOptions]
HeartbeatInterval = "1s"
HeartbeatEvent = true
Retry = "500ms"
WriteTimeout = "5s"
`;
const SOON = 15_000; // an answer, a state, an event
const EXPIRY = 60_000; // a short token's end: the server may grant some leeway
const BUILD = 180_000; // a compiler, the first time
const STREAMS = ["usage", "audit", "builds"];

// ---------------------------------------------------------------------------------------------------------------------
// What the test needs

let playwright, browser, folder, server, way, page, complaints, foreign;

/** The path of a program that must be there; its absence fails the run and says what to do. */
function program(path, name, cure) {
  try {
    accessSync(path ?? "", constants.X_OK);
  } catch {
    throw new Error(`${name} is missing (${path ? `nothing to run at ${path}` : "no path given"}). ${cure}`);
  }
  return resolve(path);
}

/** Starts the server, and waits for the line that names its address. */
async function startServer(listen = "127.0.0.1:0") {
  const args = ["--listen", listen, "--options", join(folder, "options.toml"), "--secret", SECRET];
  const child = spawn(program(process.env.LIVE_BIN, "The live example", "Build it with `cargo build --bin live` and set LIVE_BIN to target/debug/live."), args, {
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  child.stderr.on("data", (text) => (said = (said + text).slice(-4000)));
  const gone = new Promise((done) => child.once("exit", done));
  const url = await new Promise((done, fail) => {
    const late = setTimeout(() => fail(new Error(`The server named no address within ${SOON} ms. It said:\n${said}`)), SOON);
    let line = "";
    child.stdout.on("data", (text) => {
      line += text;
      const found = /^listening on (http:\/\/\S+)/m.exec(line);
      if (found) clearTimeout(late), done(new URL(found[1]));
    });
    child.once("error", (error) => (clearTimeout(late), fail(error)));
    gone.then((code) => (clearTimeout(late), fail(new Error(`The server ended with ${code} before it named an address. It said:\n${said}`))));
  });
  return { child, url, gone };
}

async function stopServer({ child, gone }) {
  child.kill("SIGCONT");
  child.kill("SIGKILL");
  await gone;
}

before(async () => {
  const chromium = program(process.env.CHROMIUM ?? "/usr/bin/chromium", "Chromium", "Install it (on Debian: apt-get install chromium) or set CHROMIUM to its path.");
  try {
    playwright = await import("playwright-core");
  } catch (error) {
    throw new Error("playwright-core is missing. Run `npm ci` in tests/browser.", { cause: error });
  }
  folder = mkdtempSync(join(tmpdir(), "hero-sse-browser-"));
  writeFileSync(join(folder, "options.toml"), OPTIONS);
  server = await startServer();
  browser = await playwright.chromium.launch({
    executablePath: chromium,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});

after(async () => {
  await browser?.close();
  way?.close();
  if (server) await stopServer(server);
  if (folder) rmSync(folder, { recursive: true, force: true });
});

// Each test has a profile of its own, so that no connection of another one counts against its six.
beforeEach(async () => {
  const context = await browser.newContext({ viewport: { width: 1360, height: 900 } });
  page = await context.newPage();
  complaints = [];
  foreign = [];
  page.on("console", (message) => {
    // A refused or broken request is always written to the console by the browser itself.
    const network = /^Failed to load resource: |net::ERR_/.test(message.text());
    if (["error", "warning"].includes(message.type()) && !network) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "data:" && ![server.url.origin, way?.url.origin].includes(url.origin)) foreign.push(request.url());
  });
  page.setDefaultTimeout(SOON);
  await page.goto(server.url.href);
});

afterEach(async () => {
  await page?.context().close();
  assert.deepEqual(complaints, [], "the page complained on the console");
  assert.deepEqual(foreign, [], "the page asked somebody else");
});

// ---------------------------------------------------------------------------------------------------------------------
// What a person does and sees

const card = (name) => page.locator(`[data-stream=${name}]`);

/** What a card says about its stream. */
async function shown(name) {
  const { state, events, heartbeats, reconnects, reopened, lastId, lastClose } = await card(name).evaluate((node) => ({ ...node.dataset }));
  const counts = { events: Number(events), heartbeats: Number(heartbeats), reconnects: Number(reconnects), reopened: Number(reopened) };
  return { state, ...counts, lastId, lastClose, pill: await card(name).locator(".pill").innerText(), words: await card(name).locator(".words p").innerText() };
}

/** Waits until `holds` is true of what `look` returns, and returns that. */
async function until(what, look, holds, limit = SOON) {
  const end = Date.now() + limit;
  for (;;) {
    const seen = await look();
    if (holds(seen)) return seen;
    if (Date.now() > end) assert.fail(`${what}: not within ${limit} ms. Last seen: ${JSON.stringify(seen)}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

const state = (name, wanted, limit) => until(`${name} is ${wanted}`, () => shown(name), (seen) => seen.state === wanted, limit);

async function signIn({ ttl = 300, without = [] } = {}) {
  await page.fill("#ttl", String(ttl));
  for (const name of ["usage.read", "audit.read", "builds.read", "builds.start"]) {
    await page.locator(`[name=permission][value="${name}"]`).setChecked(!without.includes(name));
  }
  await page.click("#sign-in");
}

async function build(broken) {
  await page.locator("#break-it").setChecked(broken);
  await page.click("#start-build");
}

/** Where the log lines on the page stand in the file, oldest first. */
const lines = () => page.locator("#audit-rows tr[data-place]:not(.gap)").evaluateAll((rows) => rows.map((row) => row.dataset.place).reverse());

/** What the lines in the file are about, oldest first. */
function written() {
  const log = join(folder, "hero-sse-audit.log");
  const text = [`${log}.1`, log].map((file) => (existsSync(file) ? readFileSync(file, "utf8") : "")).join("");
  return text.trimEnd().split("\n").map((line) => JSON.parse(line)).map(({ method, path }) => `${method} ${path}`);
}

/** A line of the log, by way of a request to this server. */
const request = (path) => fetch(new URL(path, server.url)).then((answer) => answer.arrayBuffer());

const gaps = () => page.locator("#audit-rows tr.gap").allInnerTexts();

const phases = () => page.locator("#build-list [data-build]").evaluateAll((rows) => rows.map((row) => row.dataset.phase));

// ---------------------------------------------------------------------------------------------------------------------

test("signed in, the gauge, the log and the build list move", async () => {
  assert.equal((await shown("usage")).state, "idle");
  await signIn();
  for (const name of STREAMS) await state(name, "live");

  await until("a place to come back to, before the first build", () => shown("builds"), ({ lastId, events }) => lastId && events === 0);
  const first = await until("a reading", () => shown("usage"), ({ events }) => events >= 1);
  const line = () => page.locator("#cpu-line").getAttribute("d");
  const drawn = await line();
  await until("further readings", () => shown("usage"), ({ events }) => events >= first.events + 3);
  assert.notEqual(await line(), drawn, "the chart moved");
  assert.match(await page.locator("#cpu-now").innerText(), /^\d+\.\d %$/);
  assert.match(await page.locator("#memory-now").innerText(), /^\d+\.\d+ GiB$/);

  await until("the log names the requests of this page", () => page.locator("#audit-rows").innerText(), (text) => text.includes("/api/v1/usage/stream"));
  const before = await lines();
  assert.ok(before.length > 0 && before.every((place) => place), `every line has a place: ${before}`);
  const { lastId } = await shown("audit");
  assert.ok(lastId, "and the stream a cursor");
  await page.evaluate(() => fetch("/style.css", { cache: "no-store" }));
  await until("a new line in the log", lines, (seen) => seen.length > before.length);
  assert.notEqual((await shown("audit")).lastId, lastId, "the cursor moves");
});

test("a finished build ends its stream for good, and the next one opens it again", async () => {
  await signIn();
  await state("builds", "live");
  await build(false);
  await until("a build under way", phases, ([newest]) => newest === "building" || newest === "finished", BUILD);
  await until("a finished build", phases, ([newest]) => newest === "finished", BUILD);
  const complete = await state("builds", "ended");
  assert.equal(complete.pill, "complete");
  assert.equal(complete.lastClose, "last_event");
  assert.match(complete.lastId, /hero\.end$/);
  assert.equal(complete.reconnects, 0, "the browser was not let to come back");
  const diagnostic = page.locator("#build-list details").first();
  await diagnostic.locator("summary").click();
  assert.match(await diagnostic.locator("pre").innerText(), /-->/, "the compiler's own text");

  const streams = [];
  page.on("request", (request) => request.url().includes("/builds/stream") && streams.push(new URL(request.url())));
  await build(false);
  await until("a second build, finished", phases, (all) => all.length === 2 && all[0] === "finished", BUILD);
  await state("builds", "ended");
  assert.equal(streams.length, 1);
  assert.equal(streams[0].searchParams.get("last_event_id"), null, "opened without a cursor");

  // A page that comes after the end is told the whole story.
  const story = await page.locator("#build-list [data-build]").first().innerText();
  await page.reload();
  await signIn();
  await state("builds", "ended");
  assert.deepEqual(await phases(), ["finished"]);
  assert.equal(await page.locator("#build-list [data-build]").first().innerText(), story);
});

test("a broken build is an event, and the stream stays live", async () => {
  await signIn();
  await state("builds", "ended"); // the build that was finished last
  await build(true);
  await until("a failed build", phases, ([newest]) => newest === "failed", BUILD);
  assert.ok((await page.locator('#build-list details[data-level="error"]').count()) >= 1, "an error is listed");
  const { heartbeats } = await state("builds", "live");
  const later = await until("heartbeats behind it", () => shown("builds"), (seen) => seen.heartbeats >= heartbeats + 2);
  assert.equal(later.state, "live");
  assert.equal(later.reconnects + later.reopened, 0);
});

test("a missing permission is told as 403, and the other streams do not mind", async () => {
  await signIn({ without: ["usage.read", "builds.start"] });
  const refused = await state("usage", "refused");
  assert.equal(refused.pill, "refused 403");
  assert.match(refused.words, /lacks usage\.read/);
  await state("audit", "live");
  await state("builds", "live");
  await page.click("#start-build");
  await until("the refusal of the build", () => page.locator("#build-words").innerText(), (text) => text.includes("builds.start"));

  await signIn();
  await state("usage", "live");
});

test("a token runs out in plain sight, and Renew goes on where the stream stood", async () => {
  await signIn({ ttl: 3 });
  await state("audit", "live");
  const before = await lines();
  const over = await state("audit", "expired", EXPIRY);
  assert.equal(over.pill, "token expired");
  assert.equal(over.lastClose, "token_expired");
  for (const name of STREAMS) await state(name, "expired", EXPIRY);
  const reopened = page.waitForRequest((request) => request.url().includes("/audit/stream"));
  await card("audit").getByRole("button", { name: "Renew" }).click();
  assert.equal(new URL((await reopened).url()).searchParams.get("last_event_id"), over.lastId, "the cursor is in the new stream's address");
  for (const name of STREAMS) await state(name, "live");
  const ids = await until("lines written meanwhile", lines, (seen) => seen.length > before.length);
  assert.equal(new Set(ids).size, ids.length, "no line twice");
});

test("with renewal by itself, a token that runs out is replaced", async () => {
  await page.check("#auto-renew");
  let minted = 0;
  page.on("request", (request) => (minted += request.url().endsWith("/token") ? 1 : 0));
  await signIn({ ttl: 5 });
  await state("audit", "live");
  for (const name of STREAMS) {
    await until(`${name} was closed as expired`, () => shown(name), ({ lastClose }) => lastClose === "token_expired", EXPIRY);
    await state(name, "live");
  }
  assert.ok(minted >= 2, "a new token was asked for");
  const ids = await lines();
  assert.equal(new Set(ids).size, ids.length, "no line twice");
});

test("a server that is killed and comes back is met again, without a doubled or lost line", async () => {
  await signIn();
  for (const name of STREAMS) await state(name, "live");
  for (let n = 0; n < 60; n++) await request(`/before/${n}`);
  const told = () => page.locator("#audit-rows tr:not(.gap) td:nth-child(3)").evaluateAll((cells) => cells.map(({ title }) => title).reverse());
  await until("the lines before", told, (all) => all.at(-1) === "GET /before/59");

  await stopServer(server);
  for (const name of STREAMS) await state(name, "reconnecting");
  await until("the time of the next try", () => shown("usage"), ({ pill }) => /^reconnecting in \d+ s$/.test(pill));
  const line = { time: new Date().toISOString(), method: "GET", path: "/meanwhile", status: 200, subject: null };
  appendFileSync(join(folder, "hero-sse-audit.log"), `${JSON.stringify(line)}\n`); // by somebody else
  server = await startServer(server.url.host);

  for (const name of STREAMS) {
    await state(name, "live");
    assert.ok((await shown(name)).reconnects >= 1, `${name} counts its reconnect`);
  }
  const { events } = await shown("usage");
  await until("readings again", () => shown("usage"), (seen) => seen.events >= events + 2);
  await request("/after");
  const all = await until("the lines of the new server", told, (all) => all.includes("GET /after"));
  all.splice(all.indexOf("GET /after") + 1);
  const wanted = written();
  wanted.splice(wanted.indexOf("GET /after") + 1);
  assert.deepEqual(all, wanted.slice(-all.length), "every line once, as they stand in the file");
  assert.ok(all.includes("GET /before/0") && all.includes("GET /meanwhile"));
  assert.deepEqual(await gaps(), ["The server was started anew; no line is missing."]);

  // A stream opened afresh tells the end of the same file: where both have lines, they are the same ones.
  const seen = await lines();
  await signIn();
  const fresh = await until("the log from afresh", lines, (now) => now.length > 0 && now.at(-1) !== seen.at(-1));
  const from = seen.indexOf(fresh[0]);
  assert.notEqual(from, -1, "the two overlap");
  assert.deepEqual(fresh.slice(0, seen.length - from), seen.slice(from), "each line stands where it stood");
});

test("the watchdog opens a silent stream again", async () => {
  await signIn();
  for (const name of ["audit", "builds"]) {
    await state(name, "live");
    await until(`${name} knows its heartbeat`, () => shown(name), ({ heartbeats }) => heartbeats >= 1);
  }
  const before = await lines();
  server.child.kill("SIGSTOP");
  try {
    for (const name of ["audit", "builds"]) {
      const stale = await state(name, "stale");
      assert.match(stale.words, /watchdog/);
      assert.ok(stale.reopened >= 1);
    }
  } finally {
    server.child.kill("SIGCONT");
  }
  for (const name of STREAMS) await state(name, "live", 30_000);
  const ids = await until("the log going on", lines, (seen) => seen.length > before.length);
  assert.equal(new Set(ids).size, ids.length, "no line twice");
});

test("signed out, the page keeps no connection", async () => {
  const open = new Set();
  page.on("request", (request) => request.url().includes("/stream?") && open.add(request));
  for (const end of ["requestfinished", "requestfailed"]) page.on(end, (request) => open.delete(request));
  await signIn();
  for (const name of STREAMS) await state(name, "live");
  assert.equal(open.size, 3);
  await page.click("#sign-out");
  for (const name of STREAMS) await state(name, "idle");
  await until("all three connections closed", () => open.size, (left) => left === 0);
});

test("the page fits a narrow screen", async () => {
  await page.setViewportSize({ width: 360, height: 780 });
  await signIn();
  for (const name of STREAMS) await state(name, "live");
  await until("log lines", lines, (ids) => ids.length > 0);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
});

// ---------------------------------------------------------------------------------------------------------------------
// A connection that is lost again and again

const LOSSES = 50;

/** A way to the server that breaks each stream of the log and of builds after some bytes, wherever that is in a frame, as long as `cutting`. */
async function startShakyWay(upstream) {
  const way = { cutting: true, losses: 0, inHead: 0, inFrame: 0 };
  const listener = createServer((client) => {
    const server = connect(upstream.port, upstream.hostname);
    let left = Infinity, passedOn = "";
    client.on("data", (bytes) => {
      if (way.cutting && /^GET \S+\/(audit|builds)\/stream/.test(bytes.toString("latin1"))) left = 1 + Math.floor(Math.random() * 3000);
      server.write(bytes);
    });
    server.on("data", (bytes) => {
      const passed = way.cutting ? bytes.subarray(0, left) : bytes;
      left -= passed.length;
      if (left < Infinity) passedOn += passed.toString("latin1");
      client.write(passed, () => {
        if (left > 0 || client.destroyed) return;
        way.losses += 1;
        if (!passedOn.includes("\r\n\r\n")) way.inHead += 1;
        else if (!passedOn.trimEnd().endsWith("}")) way.inFrame += 1; // data is JSON, and ends a frame
        if (way.losses >= LOSSES) way.cutting = false;
        client.resetAndDestroy();
        server.destroy();
      });
    });
    for (const [one, other] of [[client, server], [server, client]]) {
      one.on("error", () => {});
      one.on("close", () => other.destroy());
    }
  });
  await new Promise((done) => listener.listen(0, "127.0.0.1", done));
  way.url = new URL(`http://127.0.0.1:${listener.address().port}`);
  way.close = () => listener.close();
  return way;
}

test("over connections that are lost fifty times every line of the log, and of a build, is shown once", async (t) => {
  way = await startShakyWay(server.url);
  await page.goto(way.url.href);
  // The page forgets the oldest rows: each is noted as it comes.
  await page.evaluate(() => {
    window.added = [];
    new MutationObserver((changes) => {
      for (const { addedNodes } of changes) for (const row of addedNodes) window.added.push({ gap: row.classList.contains("gap"), empty: row.classList.contains("empty"), path: row.children[2]?.title });
    }).observe(document.querySelector("#audit-rows"), { childList: true });
  });
  await signIn();
  await build(false);
  const began = Date.now();
  let asked = 0;
  while (way.losses < LOSSES) {
    assert.ok(Date.now() - began < 2 * EXPIRY, `only ${way.losses} losses`);
    await request(`/line/${asked++}`);
    await new Promise((done) => setTimeout(done, Math.random() * 60));
  }
  await request("/line/last");
  const rows = () => page.evaluate(() => window.added.filter(({ empty }) => !empty));
  const added = await until("the last line", rows, (all) => all.some(({ path }) => path === "GET /line/last"), 2 * SOON);
  const took = (Date.now() - began) / 1000;
  const { reconnects, reopened } = await shown("audit");
  t.diagnostic(`${way.losses} losses, ${way.inFrame} within a frame and ${way.inHead} within a head; ${asked + 1} requests, ${added.length} lines shown; ${reconnects} reconnects, ${reopened} by the watchdog; ${took.toFixed(1)} s`);

  assert.deepEqual(added.filter(({ gap }) => gap), [], "no gap");
  const shownPaths = added.map(({ path }) => path);
  const wanted = written();
  wanted.splice(wanted.lastIndexOf("GET /line/last") + 1);
  shownPaths.splice(shownPaths.lastIndexOf("GET /line/last") + 1);
  assert.deepEqual(shownPaths, wanted.slice(-shownPaths.length), "every line once, as they stand in the file");
  assert.ok(shownPaths.length > asked && way.inFrame > LOSSES / 4 && reconnects >= LOSSES / 2);
  assert.deepEqual(shownPaths.filter((path) => /line.\d/.test(path)), Array.from({ length: asked }, (_, n) => `GET /line/${n}`));

  // The build was told while connections broke, too.
  await state("builds", "ended");
  const [row] = await page.locator("#build-list [data-build]").all();
  assert.equal(await row.getAttribute("data-phase"), "finished");
  assert.match(await row.innerText(), /3 warnings[^]*3 artifacts; the latest is clock/);
  assert.equal(await row.locator("details").count(), 3);
});
