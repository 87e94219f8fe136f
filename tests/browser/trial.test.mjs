// A real Chromium and a server: tabs that close, and servers that restart while tabs are open. Every wait is bounded.
// Lines that begin with `figure` are measurements.
//
//   cargo build -p hero-sse-tests --bin trial && cd tests/browser && npm ci && \
//     TRIAL_BIN=../../target/debug/trial node --test trial.test.mjs

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Server, figure, launch, sleep, until } from "./trial.mjs";

// Time until the server notices that a client has left: 1 s is promised, and the browser takes some time itself.
const GONE = 2_000;

let browser;

before(async () => (browser = await launch()));
after(() => browser?.close());

/** Lets the page open so many streams, and records their events. */
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

// No event is due for a minute, so only the disconnect itself can end a stream.
const bases = [
  { protocol: "http/1.1", args: [], scheme: "http", streams: 6 },
  { protocol: "h2", args: ["--self-signed"], scheme: "https", streams: 20 },
];

for (const { protocol, args, scheme, streams } of bases) {
  describe(`over ${protocol} a client that leaves is noticed at once`, () => {
    let server;
    before(async () => (server = await new Server(args, { scheme }).start()));
    after(() => server?.stop());

    const departures = [
      ["es.close()", 1, (page) => page.evaluate(() => sources.forEach((source) => source.close()))],
      ["tab closed", 1, (page) => page.close()],
      [`tab closed, ${streams} streams`, streams, (page) => page.close()],
      ["reload", 1, (page) => page.reload()],
      ["another page", 1, (page) => page.goto("about:blank")],
      ["context closed", 1, (page) => page.context().close()],
      // The renderer crashes in the middle of this, so there is no result.
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
        const protocols = await page.evaluate(() => performance.getEntriesByType("navigation").map((entry) => entry.nextHopProtocol));
        assert.deepEqual(protocols, [protocol]);
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

for (const { protocol, args, scheme } of bases) test(`over ${protocol} three tabs see every event once, through restarts`, async () => {
  const epoch = Date.now();
  const server = await new Server(["--epoch-ms", String(epoch), "--interval-ms", "50", "--set", "Retry=1s", ...args], { scheme }).start();
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
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
      figure({ drill: signal, protocol, down_ms: down, back_after_ms: Math.round(await progress()) });
      await server.open(3);
    }
    await sleep(2000);
    await progress();
    for (const [n, { ids, opens, errors, closed, reasons, state }] of (await all()).entries()) {
      figure({ drill: `tab ${n + 1}`, protocol, events: ids.length, first: ids[0], last: ids.at(-1), opens, errors, closed });
      assert.deepEqual(ids, Array.from(ids, (_, place) => place + 1), "every event once and in order");
      // There may be more: if the machine's network changes, Chromium closes its connections.
      assert.ok(opens >= 4, `${opens} opened`);
      assert.deepEqual(reasons, ["draining", "draining"], "a killed server says nothing");
      assert.equal(closed, 0, "none gave up");
      assert.deepEqual(state, [1]);
    }
  } finally {
    await context.close();
    await server.stop();
  }
});

// A busy page does not read. It must not miss what it has not read.
for (const { protocol, args, scheme } of bases) test(`over ${protocol} a page that hangs is dropped in time, reconnects and misses nothing`, async () => {
  const epoch = Date.now();
  const fast = ["--epoch-ms", String(epoch), "--interval-ms", "5", "--payload", "20000", "--set", "Retry=1s", "--set", "WriteTimeout=1s"];
  const server = await new Server([...fast, ...args], { scheme }).start();
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  try {
    const [stuck, healthy] = await Promise.all([1, 2].map(() => context.newPage()));
    await Promise.all([stuck, healthy].map((page) => page.goto(server.url)));
    await Promise.all([stuck, healthy].map((page) => follow(page, "/feed?last_event_id=0")));
    await until("both open", server.stats, ({ open }) => open === 2);
    const busy = stuck.evaluate(() => {
      for (const end = Date.now() + 8_000; Date.now() < end; );
    });
    const took = await until("the stuck page is dropped", server.stats, ({ closed }) => closed.write_timeout === 1, 8_000, 20);
    figure({ stuck: "dropped", protocol, ms: Math.round(took) });
    await busy;
    const back = await until("the stuck page has caught up", () => seen(stuck), ({ ids }) => ids.at(-1) >= (Date.now() - epoch) / 5 - 200, 60_000);
    figure({ stuck: "caught up", protocol, ms: Math.round(back) });
    for (const page of [stuck, healthy]) {
      const { ids, opens, closed, state } = await seen(page);
      assert.deepEqual(ids, Array.from(ids, (_, place) => place + 1), "every event once and in order");
      assert.deepEqual([opens > 1, closed, state], [page === stuck, 0, [1]]);
    }
  } finally {
    await context.close();
    await server.stop();
  }
});
