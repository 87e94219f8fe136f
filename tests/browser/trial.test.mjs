// What a real Chromium does to a server, and a server to it: tabs that leave, and servers that are restarted under
// their tabs. Every wait is bounded. Lines that begin with `figure` are what was measured.
//
//   cargo build -p hero-sse-tests --bin trial && cd tests/browser && npm ci && \
//     TRIAL_BIN=../../target/debug/trial node --test trial.test.mjs

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { resolve } from "node:path";
import { after, before, describe, test } from "node:test";

const SOON = 15_000;
const GONE = 1_000; // until the server has noticed that a client left

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const figure = (what) => console.log(`figure ${JSON.stringify(what)}`);

function program(path, name, cure) {
  try {
    accessSync(path ?? "", constants.X_OK);
  } catch {
    throw new Error(`${name} is missing (${path ? `nothing to run at ${path}` : "no path given"}). ${cure}`);
  }
  return resolve(path);
}

/** Waits until `holds` is true of what `look` returns; how long that took. */
async function until(what, look, holds, limit = SOON, pause = 50) {
  const start = performance.now();
  for (;;) {
    const seen = await look();
    const took = performance.now() - start;
    if (holds(seen)) return took;
    if (took > limit) assert.fail(`${what}: not within ${limit} ms. Last seen: ${JSON.stringify(seen)}`);
    await sleep(pause);
  }
}

class Server {
  constructor(args, scheme = "http") {
    Object.assign(this, { args, scheme, listen: "127.0.0.1:0" });
  }

  async start() {
    const trial = program(process.env.TRIAL_BIN, "The server for trials", "Build it with `cargo build -p hero-sse-tests --bin trial` and set TRIAL_BIN to target/debug/trial.");
    this.child = spawn(trial, ["serve", "--listen", this.listen, ...this.args], { stdio: ["ignore", "pipe", "inherit"] });
    this.gone = new Promise((done) => this.child.once("exit", done));
    const line = await new Promise((done, fail) => {
      this.child.stdout.once("data", (text) => done(String(text)));
      this.gone.then((code) => fail(new Error(`The server ended with ${code} before it listened.`)));
    });
    // From now on this address, also after a restart.
    this.listen = JSON.parse(line.split("\n")[0]).listening;
    this.url = `${this.scheme}://${this.listen}`;
    return this;
  }

  async stop(signal = "SIGTERM") {
    this.child.kill(signal);
    await this.gone;
  }

  stats = async () => (await fetch(`${this.url}/stats`)).json();

  /** How long until this many streams are open. */
  open = (count, limit = SOON) => until(`${count} open streams`, this.stats, ({ open, alive }) => open === count && alive === count, limit, 10);
}

let browser;

before(async () => {
  const chromium = program(process.env.CHROMIUM ?? "/usr/bin/chromium", "Chromium", "Install it (on Debian: apt-get install chromium) or set CHROMIUM to its path.");
  const playwright = await import("playwright-core").catch((cause) => {
    throw new Error("playwright-core is missing. Run `npm ci` in tests/browser.", { cause });
  });
  browser = await playwright.chromium.launch({
    executablePath: chromium,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});

after(() => browser?.close());

/** The page opens so many streams, and keeps what they tell. */
function follow(page, path, count = 1) {
  return page.evaluate(
    ([path, count]) => {
      window.sources = Array.from({ length: count }, () => new EventSource(path));
      window.seen = { ids: [], opens: 0, errors: 0, closed: 0, reasons: [] };
      for (const source of sources) {
        source.onmessage = ({ lastEventId, data }) => seen.ids.push(data.startsWith(`${lastEventId} `) ? Number(lastEventId) : data);
        source.onopen = () => seen.opens++;
        source.addEventListener("hero.close", ({ data }) => seen.reasons.push(JSON.parse(data).reason));
        source.onerror = () => {
          seen.errors++;
          if (source.readyState === EventSource.CLOSED) seen.closed++;
        };
      }
    },
    [path, count],
  );
}

const seen = (page) => page.evaluate(() => ({ ...window.seen, state: window.sources.map((source) => source.readyState) }));

// ---------------------------------------------------------------------------------------------------------------------

// Nothing is due for a minute: whoever notices, notices the departure itself.
const bases = [{ protocol: "HTTP/1.1", args: [], scheme: "http", streams: 6 }];

for (const { protocol, args, scheme, streams } of bases) {
  describe(`over ${protocol} a client that leaves is noticed at once`, () => {
    let server;
    before(async () => (server = await new Server(args, scheme).start()));
    after(() => server?.stop());

    const departures = [
      ["es.close()", 1, (page) => page.evaluate(() => sources.forEach((source) => source.close()))],
      ["tab closed", 1, (page) => page.close()],
      [`tab closed, ${streams} streams`, streams, (page) => page.close()],
      ["reload", 1, (page) => page.reload()],
      ["another page", 1, (page) => page.goto("about:blank")],
      ["context closed", 1, (page) => page.context().close()],
      // The renderer dies in the middle of this; nothing is left to answer.
      ["crash", 1, (page) => [page.waitForEvent("crash"), page.goto("chrome://crash").catch(() => {})][0]],
    ];
    for (const [how, count, leave] of departures) {
      test(how, async () => {
        const context = await browser.newContext({ ignoreHTTPSErrors: true });
        const page = await context.newPage();
        await page.goto(server.url);
        await follow(page, "/idle", count);
        await until("open streams", () => seen(page), ({ opens }) => opens === count);
        await server.open(count);
        const left = leave(page);
        const took = await server.open(0, GONE);
        figure({ departure: how, protocol, ms: Math.round(took) });
        await left;
        const { closed } = await server.stats();
        assert.deepEqual(Object.keys(closed), ["client_gone"]);
        await context.close();
      });
    }
  });
}

test("three tabs live through restarts and see every event once", async () => {
  const epoch = Date.now();
  const server = await new Server(["--epoch-ms", String(epoch), "--interval-ms", "50", "--set", "Retry=1s"]).start();
  const context = await browser.newContext();
  try {
    const tabs = await Promise.all([1, 2, 3].map(() => context.newPage()));
    await Promise.all(tabs.map((tab) => tab.goto(server.url)));
    await Promise.all(tabs.map((tab) => follow(tab, "/feed?last_event_id=0")));
    const all = () => Promise.all(tabs.map(seen));
    const progress = async () => {
      const due = Math.floor((Date.now() - epoch) / 50);
      return until("every tab has caught up", all, (tabs) => tabs.every(({ ids }) => ids.at(-1) >= due), 60_000);
    };
    await progress();
    for (const [signal, down] of [["SIGTERM", 3000], ["SIGTERM", 1500], ["SIGKILL", 3000]]) {
      await server.stop(signal);
      await sleep(down);
      await server.start();
      figure({ drill: signal, down_ms: down, back_after_ms: Math.round(await progress()) });
      assert.equal((await server.stats()).open, 3);
    }
    await sleep(2000);
    await progress();
    for (const [n, { ids, opens, errors, closed, reasons, state }] of (await all()).entries()) {
      figure({ drill: `tab ${n + 1}`, events: ids.length, first: ids[0], last: ids.at(-1), opens, errors, closed });
      assert.deepEqual(ids, Array.from(ids, (_, place) => place + 1), "every event once and in order");
      assert.equal(opens, 4);
      assert.deepEqual(reasons, ["draining", "draining"], "a killed server says nothing");
      assert.equal(closed, 0, "none gave up");
      assert.deepEqual(state, [1]);
    }
  } finally {
    await context.close();
    await server.stop();
  }
});
