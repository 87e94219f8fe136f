// Cookies, origins and CORS in a real Chromium, and what the server accepts. Every page has a server of its own:
// another port is another origin of the same site, and `localhost` is another site than `127.0.0.1`.
//
//   cargo build -p hero-sse-tests --bin trial && cd tests/browser && npm ci && \
//     TRIAL_BIN=../../target/debug/trial node --test credentials.test.mjs

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";

import { Server, launchWithCookies, until } from "./trial.mjs";

const set = (...settings) => settings.flatMap((setting) => ["--set", setting]);
const started = (...settings) => new Server(["--interval-ms", "50", ...set("TokenCookie=t", ...settings)]).start();
const overTls = (...settings) =>
  new Server(["--self-signed", "--interval-ms", "50", ...set("TokenCookie=t", ...settings)], { scheme: "https" }).start();
const elsewhere = (server) => server.url.replace("127.0.0.1", "localhost");

// `pages` serves pages of another origin only.
let folder, context, page, pages;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "hero-sse-cookies-"));
  context = await launchWithCookies(folder, ["--host-resolver-rules=MAP rebound.test 127.0.0.1"]);
  pages = await started();
});
after(async () => {
  await context?.close();
  await pages?.stop();
  if (folder) rmSync(folder, { recursive: true, force: true });
});
beforeEach(async () => {
  await page?.close();
  await context.clearCookies();
  page = await context.newPage();
});

/** Opens an EventSource in the page. Returns `open` with its first event, or `closed`. */
const follow = (url, withCredentials = false) =>
  page.evaluate(
    ([url, withCredentials]) =>
      new Promise((done) => {
        window.source = new EventSource(url, { withCredentials });
        window.ids = [];
        source.onmessage = ({ lastEventId }) => (ids.push(Number(lastEventId)), done("open"));
        source.onerror = () => source.readyState === EventSource.CLOSED && done("closed");
      }),
    [url, withCredentials],
  );

/** Returns the status of a fetch, or `failed` if the page cannot see it. */
const fetched = (url, options) =>
  page.evaluate(
    ([url, options]) => fetch(url, { ...options, signal: AbortSignal.timeout(5_000) }).then(({ status, type }) => (type === "opaque" ? type : status), () => "failed"),
    [url, options],
  );

const login = async (server, attributes = "") => {
  await page.goto(`${server.url}/login?${attributes}`);
  const [cookie] = await context.cookies(server.url);
  assert.equal(cookie?.value, "ann", "the browser keeps the cookie");
};

/** Returns how often handlers ran and how many requests had a cookie since `before`. */
const since = async (server, before) => {
  const now = await server.stats();
  return { ran: now.opened - before.opened, cookies: now.cookies - before.cookies, preflights: now.preflights - before.preflights };
};

describe("without CORS", () => {
  let server, secure;
  before(async () => {
    server = await started();
    secure = await overTls();
  });
  after(async () => {
    await server?.stop();
    await secure?.stop();
  });

  test("a page of the same origin opens the stream with its cookie", async () => {
    await login(server);
    const start = await server.stats();
    assert.equal(await follow("/private"), "open");
    assert.deepEqual(await since(server, start), { ran: 1, cookies: 1, preflights: 0 });
  });

  test("a form and a fetch of the same origin post with their cookie", async () => {
    await login(server);
    const start = await server.stats();
    assert.equal(await fetched("/posted", { method: "POST" }), 200);
    assert.equal(await fetched("/posted", { method: "POST", mode: "no-cors" }), 200);
    assert.deepEqual(await since(server, start), { ran: 2, cookies: 2, preflights: 0 });
  });

  for (const sameSite of ["SameSite=Strict", "SameSite=Lax", ""]) {
    test(`another port is of the same site: the cookie is sent, and refused (${sameSite || "no SameSite"})`, async () => {
      await login(server, sameSite);
      await page.goto(pages.url);
      const start = await server.stats();
      assert.equal(await follow(`${server.url}/private`, true), "closed");
      assert.deepEqual(await since(server, start), { ran: 0, cookies: 1, preflights: 0 });
    });
  }

  test("an image, a script, a fetch without CORS and a form of another port run no handler", async () => {
    await login(server);
    await page.goto(pages.url);
    const start = await server.stats();
    assert.equal(await fetched(`${server.url}/private`, { mode: "no-cors", credentials: "include" }), "opaque");
    assert.equal(await fetched(`${server.url}/posted`, { mode: "no-cors", credentials: "include", method: "POST" }), "opaque");
    for (const element of ["img", "script"]) {
      const load = ([element, src]) => new Promise((done) => document.body.append(Object.assign(document.createElement(element), { src, onerror: done, onload: done })));
      await page.evaluate(load, [element, `${server.url}/private`]);
    }
    const submit = (action) => (document.body.innerHTML = `<form method="post" action="${action}"></form>`, document.forms[0].submit());
    await Promise.all([page.waitForNavigation(), page.evaluate(submit, `${server.url}/posted`)]);
    assert.deepEqual(await since(server, start), { ran: 0, cookies: 5, preflights: 0 });
  });

  test("a link from another site sends a Lax cookie, and runs no handler", async () => {
    await login(server, "SameSite=Lax");
    await page.goto(elsewhere(pages));
    const start = await server.stats();
    const click = (href) => document.body.appendChild(Object.assign(document.createElement("a"), { href })).click();
    const answer = page.waitForResponse(`${server.url}/private`);
    await page.evaluate(click, `${server.url}/private`);
    assert.equal((await answer).status(), 403);
    assert.deepEqual(await since(server, start), { ran: 0, cookies: 1, preflights: 0 });
  });

  test("a page of another site sends only a cookie with SameSite=None, and is refused in either case", async () => {
    for (const [attributes, cookies] of [["SameSite=Lax", 0], ["SameSite=None;Secure", 1]]) {
      await context.clearCookies();
      await login(secure, attributes);
      await page.goto(elsewhere(pages));
      const start = await secure.stats();
      assert.equal(await follow(`${secure.url}/private`, true), "closed");
      assert.deepEqual(await since(secure, start), { ran: 0, cookies, preflights: 0 }, attributes);
    }
  });

  test("a sandboxed frame, whose origin is null, runs no handler", async () => {
    await login(secure, "SameSite=None;Secure");
    await page.goto(secure.url);
    const start = await secure.stats();
    const state = await page.evaluate(
      (url) =>
        new Promise((done) => {
          window.onmessage = ({ data }) => done(data);
          const script = `const s = new EventSource("${url}", { withCredentials: true }); s.onopen = () => parent.postMessage("open", "*"); s.onerror = () => s.readyState === 2 && parent.postMessage("closed", "*");`;
          const frame = Object.assign(document.createElement("iframe"), { srcdoc: `<script>${script}</script>` });
          frame.sandbox = "allow-scripts";
          document.body.append(frame);
        }),
      `${secure.url}/private`,
    );
    assert.equal(state, "closed");
    const { ran, cookies } = await since(secure, start);
    assert.deepEqual({ ran, cookies }, { ran: 0, cookies: 1 });
  });

  test("a page of another origin cannot read a public stream either", async () => {
    await page.goto(pages.url);
    assert.equal(await follow(`${server.url}/feed`), "closed");
    assert.equal(await fetched(`${server.url}/private`, { headers: { authorization: "Bearer ann" } }), "failed");
  });
});

describe("with CORS", () => {
  let reads, acts, secure;
  before(async () => {
    secure = await overTls(`CorsOrigins=${pages.url}`, "CorsCredentials=true");
    reads = await started(`CorsOrigins=${pages.url}`);
    acts = await started(`CorsOrigins=${pages.url},http://localhost:1`, "CorsCredentials=true", "MaxAge=2s", "HeartbeatInterval=1s", "Retry=500ms");
  });
  after(async () => {
    await reads?.stop();
    await acts?.stop();
    await secure?.stop();
  });

  test("without credentials, an allowed page can read with a token, but not with a cookie", async () => {
    await login(reads);
    await page.goto(pages.url);
    assert.equal(await follow(`${reads.url}/feed`), "open");
    assert.equal(await follow(`${reads.url}/private?access_token=ann`), "open");
    const start = await reads.stats();
    assert.equal(await follow(`${reads.url}/private`, true), "closed");
    assert.equal(await follow(`${reads.url}/feed`, true), "closed");
    assert.equal(await fetched(`${reads.url}/private`, { headers: { authorization: "Bearer ann", "last-event-id": "5" } }), 200);
    // The cookie is sent with both. On the public feed it is ann's, for whom this page must not act.
    assert.deepEqual(await since(reads, start), { ran: 1, cookies: 2, preflights: 1 });
  });

  test("a page can tell a refusal from other failures", async () => {
    await page.goto(pages.url);
    assert.equal(await fetched(`${reads.url}/private`, {}), 401);
    assert.equal(await fetched(`${reads.url}/private`, { headers: { authorization: "Bearer eve" } }), 401);
    const challenge = await page.evaluate((url) => fetch(url).then((answer) => answer.headers.get("www-authenticate")), `${reads.url}/private`);
    assert.match(challenge, /^Bearer /);
  });

  test("with credentials, an allowed page opens the stream with the cookie, and resumes with its cursor", async () => {
    await login(acts);
    await page.goto(pages.url);
    const start = await acts.stats();
    assert.equal(await follow(`${acts.url}/private`, true), "open");
    await until("events of a second connection", () => since(acts, start), ({ ran }) => ran >= 2);
    const first = await page.evaluate(() => ids.length);
    await until("more of them", () => page.evaluate(() => ids.length), (count) => count > first + 5);
    const ids = await page.evaluate(() => window.ids);
    assert.deepEqual(ids, Array.from(ids, (_, place) => ids[0] + place), "every event once and in order");
    const { ran, cookies, preflights } = await since(acts, start);
    assert.equal(cookies, ran);
    assert.equal(preflights, 0, "Chromium asks nothing before a reconnect");
  });

  test("a page that is not on the list is refused, whatever the site", async () => {
    for (const url of [reads.url, elsewhere(pages)]) {
      await login(secure, "SameSite=None;Secure");
      await page.goto(url);
      const start = await secure.stats();
      assert.equal(await follow(`${secure.url}/private`, true), "closed");
      const { ran, cookies } = await since(secure, start);
      assert.deepEqual({ ran, cookies }, { ran: 0, cookies: 1 }, url);
    }
  });
});

test("with allowed hosts, a page with a rebound DNS name can read nothing", async () => {
  const open = await started();
  const guarded = await started("AllowedHosts=127.0.0.1,localhost");
  try {
    for (const [server, becomes, ran] of [[open, "open", 1], [guarded, "closed", 0]]) {
      await page.goto(server.url.replace("127.0.0.1", "rebound.test"));
      const start = await server.stats();
      assert.equal(await follow("/feed"), becomes);
      assert.equal((await since(server, start)).ran, ran);
    }
    await page.goto(guarded.url);
    assert.equal(await follow("/feed"), "open");
  } finally {
    await open.stop();
    await guarded.stop();
  }
});
