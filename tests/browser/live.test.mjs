// The live example in a real Chromium: what a visitor sees on its page, over real sockets, while tokens expire and
// servers die. Every wait is bounded, and a wait that times out shows what the page showed instead.
//
//   cargo build --bin live && cd tests/browser && npm ci && npm test

import assert from "node:assert/strict";
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { killLive, startLive } from "./live.mjs";
import { SOON, launch, sleep } from "./trial.mjs";

const OPTIONS = `[SseOptions]
HeartbeatInterval = "1s"
HeartbeatEvent = true
Retry = "500ms"
WriteTimeout = "5s"
`;
const EXPIRY = 60_000; // the end of a short token
const BUILD = 180_000; // a compiler, the first time
const STREAMS = ["usage", "audit", "builds"];

let browser, folder, server, proxy, page, complaints, foreign;

// The secret is the default, a random one: each restart makes all tokens invalid.
const start = (listen, args = []) => startLive(folder, { listen, args: ["--options", join(folder, "options.toml"), ...args] });

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "hero-sse-browser-"));
  writeFileSync(join(folder, "options.toml"), OPTIONS);
  server = await start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  proxy?.close();
  if (server) await killLive(server);
  if (folder) rmSync(folder, { recursive: true, force: true });
});

// Each test has its own profile, so that connections of another test do not count against its six.
beforeEach(async () => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  page = await context.newPage();
  complaints = [];
  foreign = [];
  page.on("console", (message) => {
    // The browser itself writes every refused or broken request to the console.
    const network = /^Failed to load resource: |net::ERR_/.test(message.text());
    if (["error", "warning"].includes(message.type()) && !network) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "data:" && ![server.url.origin, proxy?.url.origin].includes(url.origin)) foreign.push(request.url());
  });
  page.setDefaultTimeout(SOON);
  await page.goto(server.url.href);
});

afterEach(async () => {
  await page?.context().close();
  assert.deepEqual(complaints, [], "errors on the console");
  assert.deepEqual(foreign, [], "requests to another server");
});

// ---------------------------------------------------------------------------------------------------------------------
// What a visitor does and sees

const card = (name) => page.locator(`[data-stream=${name}]`);

/** What a card says about its stream. */
async function shown(name) {
  const data = await card(name).evaluate((node) => ({ ...node.dataset }));
  const counts = Object.fromEntries(["events", "heartbeats", "closed", "lost", "reconnects", "reopened"].map((key) => [key, Number(data[key])]));
  const { state, lastId, lastClose, outdated } = data;
  const pill = await card(name).locator(".pill").innerText();
  const sentence = await card(name).locator(".words p").innerText();
  return { state, ...counts, lastId, lastClose, outdated: outdated !== undefined, pill, sentence };
}

/** Waits until `holds` is true of what `look` returns, and returns that. */
async function until(what, look, holds, limit = SOON) {
  const end = Date.now() + limit;
  for (;;) {
    const seen = await look();
    if (holds(seen)) return seen;
    if (Date.now() > end) assert.fail(`${what}: not within ${limit} ms. Last seen: ${JSON.stringify(seen)}`);
    await sleep(50);
  }
}

const state = (name, wanted, limit) => until(`${name} is ${wanted}`, () => shown(name), (seen) => seen.state === wanted, limit);

async function allLive() {
  for (const name of STREAMS) await state(name, "live");
}

const permission = (name) => page.locator(`[name=permission][value="${name}"]`);
const message = () => page.locator("#session-message").innerText();
const signedIn = (text) => until("signed in", message, (seen) => seen.includes(text));

/** Signs out and in again: the page drops its data and opens every stream without a position. */
async function signInAfresh({ ttl = 300 } = {}) {
  await page.click("#sign-out");
  await page.fill("#ttl", String(ttl));
  await page.click("#sign-in");
}

async function build(broken) {
  await page.locator("#break-it").setChecked(broken);
  await page.click("#start-build");
}

/** Places of the log lines on the page, oldest first. */
const places = () => page.locator("#audit-rows tr[data-place]:not(.gap)").evaluateAll((rows) => rows.map((row) => row.dataset.place).reverse());

/** Requests in the file, oldest first. */
function written() {
  const log = join(folder, "hero-sse-audit.log");
  const text = [`${log}.1`, log].map((file) => (existsSync(file) ? readFileSync(file, "utf8") : "")).join("");
  return text.trimEnd().split("\n").map((line) => JSON.parse(line)).map(({ method, path }) => `${method} ${path}`);
}

/** Requests on the page, oldest first. */
const requests = () => page.locator("#audit-rows tr:not(.gap) td:nth-child(3)").evaluateAll((cells) => cells.map(({ title }) => title).reverse());

/** Makes a line in the log by a request to this server. */
const request = (path) => fetch(new URL(path, server.url)).then((answer) => answer.arrayBuffer());

const gaps = () => page.locator("#audit-rows tr.gap").allInnerTexts();

const phases = () => page.locator("#build-list [data-build]").evaluateAll((rows) => rows.map((row) => row.dataset.phase));

const noneTwice = (seen) => assert.equal(new Set(seen).size, seen.length, "no line twice");

// ---------------------------------------------------------------------------------------------------------------------
// Signing in

test("the page signs in by itself, and the gauge, the log and the build list are live", async () => {
  await allLive();
  await signedIn("ann with all four permissions");
  assert.equal(await page.locator("#sign-in").isVisible(), false);
  assert.equal(await page.locator("#start-build").isEnabled(), true);

  await until("a position before the first build", () => shown("builds"), ({ lastId, events }) => lastId && events === 0);
  const first = await until("a reading", () => shown("usage"), ({ events }) => events >= 1);
  const line = () => page.locator("#cpu-line").getAttribute("d");
  const drawn = await line();
  await until("further readings", () => shown("usage"), ({ events }) => events >= first.events + 3);
  assert.notEqual(await line(), drawn, "the chart moved");
  assert.match(await page.locator("#cpu-now").innerText(), /^\d+\.\d %$/);
  assert.match(await page.locator("#memory-now").innerText(), /^\d+\.\d+ GiB$/);
  assert.equal(await page.locator("#usage .legend [data-of=events]").innerText(), String((await shown("usage")).events));

  await until("requests of this page in the log", requests, (all) => all.includes("GET /api/v1/usage/stream"));
  const before = await places();
  assert.ok(before.length > 0 && before.every((place) => place), `every line has a place: ${before}`);
  const { lastId } = await shown("audit");
  assert.ok(lastId, "the stream has an event id");
  await page.evaluate(() => fetch("/style.css", { cache: "no-store" }));
  await until("a new line in the log", places, (seen) => seen.length > before.length);
  assert.notEqual((await shown("audit")).lastId, lastId, "the event id moves");
});

test("a change of permissions signs in again: that stream is refused, the others resume", async () => {
  await allLive();
  await until("log lines", places, (seen) => seen.length > 0);
  const { lastId } = await shown("audit");
  const reopened = page.waitForRequest((request) => request.url().includes("/audit/stream"));
  await permission("usage.read").uncheck();
  assert.ok(new URL((await reopened).url()).searchParams.get("last_event_id"), `the log resumes, from ${lastId} or later`);
  const refused = await state("usage", "refused");
  assert.equal(refused.pill, "refused 403");
  assert.match(refused.sentence, /lacks the permission usage\.read\. Tick it above\./);
  assert.equal(refused.outdated, true);
  await signedIn("ann without usage.read");
  await state("audit", "live");
  await state("builds", "live");
  noneTwice(await places());

  await permission("builds.start").uncheck();
  await signedIn("ann without usage.read and builds.start");
  await page.click("#start-build");
  const text = () => page.locator("#build-message").innerText();
  assert.match(await until("the refusal of the build", text, (seen) => seen.includes("builds.start")), /^Refused with 403/);

  await permission("usage.read").check();
  assert.equal((await state("usage", "live")).outdated, false);
});

test("the newest of several quick changes wins", async () => {
  await allLive();
  // The answer to the first change arrives after the answer to the second one.
  let first = true;
  await page.route("**/token", async (route) => {
    if (first) {
      first = false;
      await sleep(1500);
    }
    await route.continue();
  });
  await permission("usage.read").uncheck();
  await permission("usage.read").check();
  await signedIn("with all four permissions");
  await sleep(2500);
  assert.match(await message(), /with all four permissions/);
  await allLive();
});

test("signed out, the page keeps no connection, starts no build, and mutes its data", async () => {
  await allLive();
  await until("a reading", () => shown("usage"), ({ events }) => events >= 1);
  await until("log lines", places, (seen) => seen.length > 0);
  const colour = () => page.locator("#cpu-now").evaluate((node) => getComputedStyle(node).color);
  const vivid = await colour();
  const open = new Set();
  await page.reload();
  page.on("request", (request) => request.url().includes("/stream?") && open.add(request));
  for (const end of ["requestfinished", "requestfailed"]) page.on(end, (request) => open.delete(request));
  await signInAfresh();
  await allLive();
  assert.equal(open.size, 3);
  await until("a reading", () => shown("usage"), ({ events }) => events >= 1);
  await until("log lines", places, (seen) => seen.length > 0);

  await page.click("#sign-out");
  for (const name of STREAMS) await state(name, "idle");
  await until("all three connections closed", () => open.size, (left) => left === 0);
  for (const name of ["usage", "audit"]) {
    const { outdated, sentence } = await shown(name);
    assert.equal(outdated, true);
    assert.match(sentence, /Last data: \d\d:\d\d:\d\d\./);
  }
  assert.notEqual(await colour(), vivid);
  assert.equal(await page.locator("#start-build").isEnabled(), false);
  assert.equal(await page.evaluate(() => document.activeElement.id), "sign-in", "the focus is on what comes next");
  await page.keyboard.press("Enter");
  await allLive();
  assert.equal(await page.locator("#start-build").isEnabled(), true);
});

test("without automatic renewal a token expires, and Renew resumes after the last event", async () => {
  await page.uncheck("#auto-renew");
  await signInAfresh({ ttl: 3 });
  await state("audit", "live");
  const before = await places();
  const expired = await state("audit", "unauthorized", EXPIRY);
  assert.equal(expired.pill, "token expired");
  assert.equal(expired.lastClose, "token_expired");
  for (const name of STREAMS) assert.equal((await state(name, "unauthorized", EXPIRY)).closed, 1);
  assert.equal((await shown("usage")).outdated, true);
  assert.match(await message(), /token expired/);
  assert.equal(await page.locator("#start-build").isEnabled(), false);
  const reopened = page.waitForRequest((request) => request.url().includes("/audit/stream"));
  await card("audit").getByRole("button", { name: "Renew" }).click();
  assert.equal(new URL((await reopened).url()).searchParams.get("last_event_id"), expired.lastId, "the URL has the last event id");
  await allLive();
  noneTwice(await until("lines written meanwhile", places, (seen) => seen.length > before.length));
});

test("with automatic renewal, the page replaces an expired token", async () => {
  let issued = 0;
  page.on("request", (request) => (issued += request.url().endsWith("/token") ? 1 : 0));
  await signInAfresh({ ttl: 5 });
  await state("audit", "live");
  for (const name of STREAMS) {
    await until(`${name} was closed as expired`, () => shown(name), ({ lastClose }) => lastClose === "token_expired", EXPIRY);
    await state(name, "live");
  }
  assert.ok(issued >= 2, "the page asked for a new token");
  noneTwice(await places());
});

// ---------------------------------------------------------------------------------------------------------------------
// Builds

test("a successful build ends its stream for good, and the next one opens it again", async () => {
  await allLive();
  await build(false);
  await until("a running build", phases, ([newest]) => newest === "building" || newest === "finished", BUILD);
  await until("a finished build", phases, ([newest]) => newest === "finished", BUILD);
  const complete = await state("builds", "ended");
  assert.equal(complete.pill, "complete");
  assert.equal(complete.lastClose, "last_event");
  assert.match(complete.lastId, /hero\.end$/);
  assert.equal(complete.reconnects, 0, "the browser did not reconnect");
  assert.equal(complete.outdated, false);
  // An orderly end is not marked as a failure.
  assert.deepEqual([complete.closed, complete.lost], [1, 0]);
  await until("the mark of the end", () => card("builds").locator("[data-of=wire-closed]").getAttribute("d"), (path) => path);
  assert.ok(!(await card("builds").locator("[data-of=wire-lost]").getAttribute("d")), "no red mark");
  const diagnostic = page.locator("#build-list details").first();
  await diagnostic.locator("summary").click();
  assert.match(await diagnostic.locator("pre").innerText(), /-->/, "the compiler's own text");

  const streams = [];
  page.on("request", (request) => request.url().includes("/builds/stream") && streams.push(new URL(request.url())));
  await build(false);
  await until("a second build, finished", phases, (all) => all.length === 2 && all[0] === "finished", BUILD);
  await state("builds", "ended");
  assert.equal(streams.length, 1);
  assert.equal(streams[0].searchParams.get("last_event_id"), null, "opened without a position");

  // A page that opens after the end receives all events of the build.
  const text = await page.locator("#build-list [data-build]").first().innerText();
  await page.reload();
  await state("builds", "ended");
  assert.deepEqual(await phases(), ["finished"]);
  assert.equal(await page.locator("#build-list [data-build]").first().innerText(), text);
});

test("a broken build is an event, and the stream stays live", async () => {
  await state("builds", "ended"); // from the last finished build
  await build(true);
  await until("a failed build", phases, ([newest]) => newest === "failed", BUILD);
  assert.equal(await page.locator("#build-list details").first().getAttribute("data-level"), "error", "the error comes first");
  const { heartbeats } = await state("builds", "live");
  const later = await until("heartbeats after it", () => shown("builds"), (seen) => seen.heartbeats >= heartbeats + 2);
  assert.equal(later.state, "live");
  assert.equal(later.reconnects + later.reopened + later.lost, 0);
});

// ---------------------------------------------------------------------------------------------------------------------
// Servers that die

/** Kills the server, appends a line to its log, and starts it again at the same address. */
async function restart(args) {
  await killLive(server);
  for (const name of STREAMS) await state(name, "reconnecting");
  await until("the time of the next attempt", () => shown("usage"), ({ pill }) => /^reconnecting in \d+ s$/.test(pill));
  assert.equal((await shown("usage")).outdated, true);
  const line = { time: new Date().toISOString(), method: "GET", path: "/meanwhile", status: 200, subject: null };
  appendFileSync(join(folder, "hero-sse-audit.log"), `${JSON.stringify(line)}\n`); // as another program would
  server = await start(server.url.host, args);
}

test("after a restart with a new secret the page signs in again with the same choice, and is live without a click", async () => {
  await allLive();
  await permission("builds.start").uncheck();
  await signedIn("without builds.start");
  await allLive();
  for (let n = 0; n < 60; n++) await request(`/before/${n}`);
  await until("the lines from before", requests, (all) => all.at(-1) === "GET /before/59");

  const asked = [];
  page.on("request", (request) => request.url().endsWith("/token") && asked.push(request.postDataJSON()));
  await restart();
  await allLive();
  assert.match(await message(), /The server refused the old token: a restart gives it a new secret\. Signed in again as ann, with the same permissions\./);
  assert.equal(asked.length, 1, "one token for all three streams");
  assert.deepEqual(asked[0], { subject: "ann", permissions: ["usage.read", "audit.read", "builds.read"], ttl: "300s" });
  assert.equal(await permission("builds.start").isChecked(), false, "the choice is as before");
  const { events } = await shown("usage");
  await until("new readings", () => shown("usage"), (seen) => seen.events >= events + 2 && !seen.outdated);

  await request("/after");
  const all = await until("lines of the new server", requests, (all) => all.includes("GET /after"));
  all.splice(all.indexOf("GET /after") + 1);
  const wanted = written();
  wanted.splice(wanted.indexOf("GET /after") + 1);
  assert.deepEqual(all, wanted.slice(-all.length), "every line once, in the order of the file");
  assert.ok(all.includes("GET /before/20") && all.includes("GET /meanwhile"));
  assert.deepEqual(await gaps(), ["The server restarted. No line is missing."]);

  // A stream without a position shows the end of the same file: the places of its lines are the same.
  const seen = await places();
  await signInAfresh();
  const fresh = await until("the log once more", places, (now) => now.length > 0 && now.at(-1) !== seen.at(-1));
  const from = seen.indexOf(fresh[0]);
  assert.notEqual(from, -1, "the two overlap");
  assert.deepEqual(fresh.slice(0, seen.length - from), seen.slice(from), "the places are the same");
});

test("after a restart with the same secret the browser reconnects with the old token", async () => {
  await killLive(server);
  const secret = ["--secret", "a secret for the browser test, known to nobody else"];
  server = await start(server.url.host, secret);
  await page.reload();
  await allLive();
  let asked = 0;
  page.on("request", (request) => (asked += request.url().endsWith("/token") ? 1 : 0));
  await restart(secret);
  await allLive();
  for (const name of STREAMS) assert.ok((await shown(name)).reconnects >= 1, `${name} counts its reconnect`);
  assert.equal(asked, 0);
  noneTwice(await places());
});

test("a server that shuts down says so, and the page resumes when it is back", async () => {
  await allLive();
  await until("a reading", () => shown("usage"), ({ events }) => events >= 1);
  server.child.kill("SIGINT");
  assert.equal(await server.exited, 0);
  const gone = await until("a failed attempt", () => shown("usage"), ({ lost }) => lost >= 1);
  assert.deepEqual([gone.closed, gone.lastClose], [1, "draining"]);
  assert.match(gone.sentence, /The server cannot be reached/);
  server = await start(server.url.host);
  await allLive();
});

test("a choice that changes while the server is away counts after its restart", async () => {
  await allLive();
  await killLive(server);
  await state("usage", "reconnecting");
  await permission("usage.read").uncheck();
  await until("a failed sign-in", message, (text) => text.includes("Trying again"));
  server = await start(server.url.host);
  await state("audit", "live");
  await state("builds", "live");
  await state("usage", "refused");
  assert.match(await message(), /^Signed in as ann without usage\.read\.$/);
});

test("a token that is refused while it is new is reported, not requested again and again", async () => {
  await allLive();
  // No stream accepts this token.
  let asked = 0;
  await page.route("**/token", (route) => {
    asked += 1;
    return route.fulfill({ json: { token: "a.b.c" } });
  });
  await signInAfresh();
  for (const name of STREAMS) assert.match((await state(name, "unauthorized")).sentence, /refused a new token/);
  await sleep(2500);
  assert.equal(asked, 1);
});

test("the watchdog reopens a silent stream", async () => {
  for (const name of ["audit", "builds"]) {
    await state(name, "live");
    await until(`${name} knows its heartbeat`, () => shown(name), ({ heartbeats }) => heartbeats >= 1);
  }
  const before = await places();
  server.child.kill("SIGSTOP");
  try {
    for (const name of ["audit", "builds"]) {
      const silent = await state(name, "silent");
      assert.match(silent.sentence, /watchdog/);
      assert.ok(silent.reopened >= 1);
    }
  } finally {
    server.child.kill("SIGCONT");
  }
  for (const name of STREAMS) await state(name, "live", 30_000);
  noneTwice(await until("new lines in the log", places, (seen) => seen.length > before.length));
});

// ---------------------------------------------------------------------------------------------------------------------
// How the page looks

test("on a laptop all three streams are above the fold, and nothing moves when states change", async () => {
  const layout = () =>
    page.locator(".panel, h2, button, input, .wire, .card-body > *").evaluateAll((nodes) =>
      nodes.filter((node) => node.checkVisibility() && !node.matches("[data-of=action], #sign-in, #sign-out")).map((node) => {
        const { x, y, width, height } = node.getBoundingClientRect();
        return [node.id || node.className || node.tagName, x, y, width, height].join(" ");
      }),
    );
  await allLive();
  await until("log lines", places, (seen) => seen.length > 5);
  const before = await layout();
  assert.ok(before.length > 20, `${before}`);
  await permission("usage.read").uncheck();
  await state("usage", "refused");
  assert.deepEqual(await layout(), before);
  await page.click("#sign-out");
  assert.deepEqual(await layout(), before);
  await permission("usage.read").check();
  await page.click("#sign-in");
  await allLive();
  assert.deepEqual(await layout(), before);

  const bottoms = await page.locator("#audit-rows tr").evaluateAll((rows) => rows.slice(0, 6).map((row) => row.getBoundingClientRect().bottom));
  assert.ok(bottoms.length === 6 && bottoms.every((bottom) => bottom < 800), `six rows of the log: ${bottoms}`);
  for (const name of STREAMS) assert.ok((await card(name).boundingBox()).y < 300);

  // The browser's own measure, over the load of the page too.
  await page.reload();
  await allLive();
  await sleep(2000);
  const shift = await page.evaluate(
    () =>
      new Promise((done) => {
        new PerformanceObserver((list) => done(list.getEntries().reduce((sum, { value }) => sum + value, 0))).observe({ type: "layout-shift", buffered: true });
        setTimeout(() => done(0), 2000); // the browser reports nothing if nothing moved
      }),
  );
  assert.ok(shift < 0.05, `cumulative layout shift ${shift}`);
});

for (const width of [360, 390, 768]) {
  test(`the page fits a screen of ${width} px, with whole curl lines and all parts of a request`, async () => {
    await page.setViewportSize({ width, height: 844 });
    await allLive();
    await until("a line with a subject", () => page.locator("#audit-rows .subject").allInnerTexts(), (all) => all.includes("ann"));
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
    const cut = await page.locator("#curl-lines code, #audit-rows td, .legend dd, .legend dt").evaluateAll((nodes) =>
      nodes.filter((node) => node.scrollWidth > node.clientWidth && getComputedStyle(node).display !== "inline").map((node) => node.textContent),
    );
    assert.deepEqual(cut, []);
    const row = page.locator("#audit-rows tr").filter({ hasText: "ann" }).first();
    for (const part of [".time", ".status", ".method", ".request", ".subject"]) {
      const { x, width: wide } = await row.locator(part).boundingBox();
      assert.ok(x >= 0 && wide > 0 && x + wide <= width, `${part} is visible`);
    }
    const line = await page.locator("#curl-lines code").first().boundingBox();
    assert.ok(line.x >= 0 && line.x + line.width <= width);
  });
}

/** Texts whose contrast is below 4.5:1, or 3:1 for large text (WCAG 2.2, 1.4.3). Disabled controls are exempt. */
const lowContrast = () =>
  page.evaluate(() => {
    const parse = (text) => {
      const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
      return { rgb: [r, g, b], a };
    };
    const luminance = (rgb) => {
      const [r, g, b] = rgb.map((value) => value / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const background = (node) => {
      for (let at = node; at; at = at.parentElement) {
        const { rgb, a } = parse(getComputedStyle(at).backgroundColor);
        if (a === 1) return rgb;
      }
      return [255, 255, 255];
    };
    const found = [];
    for (const node of document.querySelectorAll("body *")) {
      const text = [...node.childNodes].filter(({ nodeType, data }) => nodeType === 3 && data.trim()).map(({ data }) => data.trim()).join(" ");
      if ((!text && node.tagName !== "INPUT") || node.matches(":disabled, template, svg *") || !node.checkVisibility()) continue;
      const style = getComputedStyle(node);
      const [light, dark] = [luminance(parse(style.color).rgb), luminance(background(node))].sort((a, b) => b - a);
      const ratio = (light + 0.05) / (dark + 0.05);
      const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
      if (ratio < (large ? 3 : 4.5)) found.push(`${text}: ${ratio.toFixed(2)}`);
    }
    return found;
  });

for (const colorScheme of ["light", "dark"]) {
  test(`text has enough contrast in the ${colorScheme} theme, also when it is muted`, async () => {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await allLive();
    await build(true);
    await until("a failed build", phases, ([newest]) => newest === "failed", BUILD);
    await until("log lines", places, (seen) => seen.length > 5);
    assert.deepEqual(await lowContrast(), []);
    await permission("usage.read").uncheck();
    await state("usage", "refused");
    assert.deepEqual(await lowContrast(), []);
    await page.click("#sign-out");
    for (const name of STREAMS) await state(name, "idle");
    assert.deepEqual(await lowContrast(), []);
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// A connection that breaks again and again

const LOSSES = 50;

/** Starts a proxy that breaks each stream of the log and of builds after some bytes, anywhere in an event, while `cutting`. */
async function startUnreliableProxy(upstream) {
  const proxy = { cutting: true, losses: 0, inHead: 0, inFrame: 0 };
  const listener = createServer((client) => {
    const server = connect(upstream.port, upstream.hostname);
    let left = Infinity, passedOn = "";
    client.on("data", (bytes) => {
      if (proxy.cutting && /^GET \S+\/(audit|builds)\/stream/.test(bytes.toString("latin1"))) left = 1 + Math.floor(Math.random() * 3000);
      server.write(bytes);
    });
    server.on("data", (bytes) => {
      const passed = proxy.cutting ? bytes.subarray(0, left) : bytes;
      left -= passed.length;
      if (left < Infinity) passedOn += passed.toString("latin1");
      client.write(passed, () => {
        if (left > 0 || client.destroyed) return;
        proxy.losses += 1;
        if (!passedOn.includes("\r\n\r\n")) proxy.inHead += 1;
        else if (!passedOn.trimEnd().endsWith("}")) proxy.inFrame += 1; // data is JSON, and ends a frame
        if (proxy.losses >= LOSSES) proxy.cutting = false;
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
  proxy.url = new URL(`http://127.0.0.1:${listener.address().port}`);
  proxy.close = () => listener.close();
  return proxy;
}

test("over connections that break fifty times, every line of the log and of a build is shown once", async (t) => {
  proxy = await startUnreliableProxy(server.url);
  await page.goto(proxy.url.href);
  await page.click("#sign-out");
  for (const name of STREAMS) await state(name, "idle");
  // The page removes the oldest rows: each row is recorded when it is added.
  await page.evaluate(() => {
    window.added = [];
    new MutationObserver((changes) => {
      for (const { addedNodes } of changes) for (const row of addedNodes) window.added.push({ gap: row.classList.contains("gap"), empty: row.classList.contains("empty"), path: row.children[2]?.title });
    }).observe(document.querySelector("#audit-rows"), { childList: true });
  });
  await page.click("#sign-in");
  await until("the start button", () => page.locator("#start-build").isEnabled(), (enabled) => enabled);
  await build(false);
  const began = Date.now();
  let asked = 0;
  while (proxy.losses < LOSSES) {
    assert.ok(Date.now() - began < 2 * EXPIRY, `only ${proxy.losses} losses`);
    await request(`/line/${asked++}`);
    await new Promise((done) => setTimeout(done, Math.random() * 60));
  }
  await request("/line/last");
  const rows = () => page.evaluate(() => window.added.filter(({ empty }) => !empty));
  const added = await until("the last line", rows, (all) => all.some(({ path }) => path === "GET /line/last"), 2 * SOON);
  const took = (Date.now() - began) / 1000;
  const { reconnects, reopened } = await shown("audit");
  t.diagnostic(`${proxy.losses} losses, ${proxy.inFrame} within a frame and ${proxy.inHead} within a head; ${asked + 1} requests, ${added.length} lines shown; ${reconnects} reconnects, ${reopened} by the watchdog; ${took.toFixed(1)} s`);

  assert.deepEqual(added.filter(({ gap }) => gap), [], "no gap");
  const shownPaths = added.map(({ path }) => path);
  const wanted = written();
  wanted.splice(wanted.lastIndexOf("GET /line/last") + 1);
  shownPaths.splice(shownPaths.lastIndexOf("GET /line/last") + 1);
  assert.deepEqual(shownPaths, wanted.slice(-shownPaths.length), "every line once, in the order of the file");
  assert.ok(shownPaths.length > asked && proxy.inFrame > LOSSES / 4 && reconnects >= LOSSES / 2);
  assert.deepEqual(shownPaths.filter((path) => /line.\d/.test(path)), Array.from({ length: asked }, (_, n) => `GET /line/${n}`));

  // The events of the build arrived while connections broke, too.
  await state("builds", "ended");
  const [row] = await page.locator("#build-list [data-build]").all();
  assert.equal(await row.getAttribute("data-phase"), "finished");
  assert.match(await row.innerText(), /3 warnings[^]*3 artifacts; latest: clock/);
  assert.equal(await row.locator("details").count(), 3);
});
