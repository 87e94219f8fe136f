// Tokens that expire while a page uses them, and tickets, in a real Chromium. Every wait is bounded. Lines that
// begin with `figure` are measurements.
//
//   cargo build -p hero-sse-tests --bin trial && cd tests/browser && npm ci && \
//     TRIAL_BIN=../../target/debug/trial node --test renew.test.mjs

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Server, figure, launch, sleep, until } from "./trial.mjs";

const EVERY = 50;

let browser;

before(async () => (browser = await launch()));
after(() => browser?.close());

/** Opens a page of a new server, which ends with it. `asked` are the requests for the feed, with their status. */
async function visit(settings, go) {
  const epoch = Date.now();
  const args = ["--epoch-ms", String(epoch), "--interval-ms", String(EVERY), ...["Retry=500ms", ...settings].flatMap((set) => ["--set", set])];
  const server = await new Server(args, { command: "renew" }).start();
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    const asked = [];
    page.on("response", (answer) => {
      const url = new URL(answer.url());
      if (url.pathname === "/feed") asked.push({ url, status: answer.status() });
    });
    await page.goto(server.url);
    await page.evaluate(() => (window.seen = { ids: [], reasons: [], renewals: 0, errors: 0, closed: 0 }));
    const seen = () => page.evaluate(() => window.seen);
    const caughtUp = () => until("the page has caught up", seen, ({ ids }) => ids.at(-1) >= Math.floor((Date.now() - epoch) / EVERY) - 5, 60_000);
    await go({ server, page, asked, seen, caughtUp });
  } finally {
    await context.close();
    await server.stop();
  }
}

const everyOne = (ids) => assert.deepEqual(ids, Array.from(ids, (_, place) => place + 1), "every event once and in order");

test("a page with tickets sees every event once, through ends and restarts", () =>
  visit(["MaxAge=2s", "HeartbeatInterval=1s"], async ({ server, page, asked, seen, caughtUp }) => {
    await page.evaluate(async () => {
      const { ticketStream } = await import("/tickets.js");
      const token = async () => (seen.renewals++, (await fetch("/token?60000")).text());
      window.closeStream = ticketStream("/feed", { tickets: "/tickets", token, cursor: "0", events: { message: (_, id) => seen.ids.push(Number(id)) } });
    });
    await until("several streams have ended of age", seen, ({ renewals }) => renewals >= 4, 30_000);
    for (const [signal, down] of [["SIGTERM", 1500], ["SIGKILL", 1500]]) {
      await caughtUp();
      await server.stop(signal);
      await sleep(down);
      await server.start();
      figure({ tickets: signal, down_ms: down, back_after_ms: Math.round(await caughtUp()) });
    }
    await caughtUp();
    const { ids } = await seen();
    everyOne(ids);
    const tickets = asked.map(({ url }) => url.searchParams.get("ticket"));
    figure({ tickets: tickets.length, events: ids.length });
    assert.ok(tickets.length >= 5 && tickets.every((ticket) => /^[0-9a-f]{64}$/.test(ticket)), String(tickets));
    assert.equal(new Set(tickets).size, tickets.length, "no ticket is tried twice");
    assert.deepEqual(asked.filter(({ status }) => status !== 200), []);
    assert.ok(asked.every(({ url }) => !url.search.includes("access_token")));
    await page.evaluate(() => closeStream());
    await server.open(0);
    const count = asked.length;
    await sleep(2_000);
    assert.equal(asked.length, count, "closed is closed");
  }));

test("a page whose token expires during a stream by ticket goes on with the next token", () =>
  visit([], async ({ page, asked, seen, caughtUp }) => {
    await page.evaluate(async () => {
      const { ticketStream } = await import("/tickets.js");
      const token = async () => (seen.renewals++, (await fetch("/token?2000")).text());
      ticketStream("/feed", { tickets: "/tickets", token, cursor: "0", events: { message: (_, id) => seen.ids.push(Number(id)) } });
    });
    await until("three renewals", seen, ({ renewals }) => renewals >= 4, 30_000);
    await caughtUp();
    everyOne((await seen()).ids);
    assert.deepEqual(asked.filter(({ status }) => status !== 200), []);
  }));

test("a page that renews its access token misses nothing", () =>
  visit([], async ({ page, asked, seen, caughtUp }) => {
    await page.evaluate(async () => {
      let cursor = "0";
      const open = async () => {
        seen.renewals++;
        const query = new URLSearchParams({ access_token: await (await fetch("/token?2000")).text(), last_event_id: cursor });
        const source = new EventSource(`/feed?${query}`);
        source.onmessage = ({ lastEventId }) => seen.ids.push(Number((cursor = lastEventId)));
        source.addEventListener("hero.close", ({ data }) => {
          const { reason, reconnect } = JSON.parse(data);
          seen.reasons.push(reason);
          if (!reconnect) source.close(), open();
        });
        source.onerror = () => seen.errors++;
      };
      await open();
    });
    await until("three renewals", seen, ({ renewals }) => renewals >= 4, 30_000);
    await caughtUp();
    const { ids, reasons, errors } = await seen();
    figure({ renewals: reasons.length, events: ids.length });
    everyOne(ids);
    assert.ok(reasons.length >= 3 && reasons.every((reason) => reason === "token_expired"), String(reasons));
    assert.deepEqual([errors, asked.filter(({ status }) => status !== 200)], [0, []]);
  }));

test("the client of the guide sees every event once, through expiring tokens, a restart and a frozen server", () =>
  visit(["MaxAge=2s", "HeartbeatInterval=500ms", "HeartbeatEvent=true"], async ({ server, page, asked, seen, caughtUp }) => {
    await page.evaluate(async () => {
      const { openStream } = await import("/stream.js");
      window.lifetime = 1_500;
      const token = async () => (seen.renewals++, (await fetch(`/token?${lifetime}`, { signal: AbortSignal.timeout(5_000) })).text());
      const message = ({ lastEventId }) => seen.ids.push(Number(lastEventId));
      window.closeStream = openStream("/feed", { token, events: { message }, gap: () => seen.errors++ });
    });
    const everyOneOnce = async () => {
      await caughtUp();
      const { ids, errors } = await seen();
      assert.deepEqual(ids, Array.from(ids, (_, place) => ids[0] + place), "every event once and in order");
      assert.equal(errors, 0);
    };
    await until("three renewals", seen, ({ renewals }) => renewals >= 4, 30_000);
    await everyOneOnce();
    await page.evaluate(() => (window.lifetime = 60_000));
    await server.stop("SIGKILL");
    await sleep(1_000);
    await server.start();
    await everyOneOnce();
    const { renewals } = await seen();
    server.child.kill("SIGSTOP");
    const noticed = await until("the page notices the silence", seen, (now) => now.renewals > renewals, 10_000).finally(() => server.child.kill("SIGCONT"));
    await everyOneOnce();
    figure({ guide: "frozen", noticed_ms: Math.round(noticed), streams: asked.length });
    await page.evaluate(() => closeStream());
    await server.open(0);
    const count = asked.length;
    await sleep(2_000);
    assert.equal(asked.length, count, "closed is closed");
  }));

for (const by of ["token", "ticket"]) test(`a page that does not renew ends with a single 401, without a loop: ${by}`, () =>
  visit([], async ({ page, asked, seen, server }) => {
    await page.evaluate(async (by) => {
      const token = await (await fetch("/token?2000")).text();
      const query = new URLSearchParams({ last_event_id: "0" });
      if (by === "token") query.set("access_token", token);
      else {
        const answer = await fetch("/tickets", { method: "POST", headers: { authorization: `Bearer ${token}` }, body: JSON.stringify({ path: "/feed" }) });
        query.set("ticket", (await answer.json()).ticket);
      }
      window.source = new EventSource(`/feed?${query}`);
      source.addEventListener("hero.close", ({ data }) => seen.reasons.push(JSON.parse(data)));
      source.onerror = () => source.readyState === EventSource.CLOSED && seen.closed++;
    }, by);
    await until("closed", seen, ({ closed }) => closed === 1);
    await sleep(3_000);
    const { reasons } = await seen();
    assert.deepEqual(reasons.map(({ reason, reconnect }) => [reason, reconnect]), [["token_expired", false]]);
    assert.deepEqual(asked.map(({ status }) => status), [200, 401]);
    assert.equal(await page.evaluate(() => source.readyState), 2);
    await server.open(0);
  }));
