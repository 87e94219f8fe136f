// A page whose network cable is pulled. The browser runs in a network namespace, which tests/it/cable.rs creates.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { Server, chromium, figure, launch, sleep, until } from "./trial.mjs";

const { CABLE_CLIENT, CABLE_SWITCH, CABLE_ADDRESS } = process.env;
const link = (state) => execFileSync("ip", ["-n", CABLE_SWITCH, "link", "set", "client", state]);

let browser, folder;

before(async () => {
  assert.ok(CABLE_CLIENT, "there is no namespace; call ./tests/run");
  folder = mkdtempSync(join(tmpdir(), "hero-sse-cable-"));
  const inside = join(folder, "chromium");
  writeFileSync(inside, `#!/bin/sh\nexec ip netns exec ${CABLE_CLIENT} ${chromium()} "$@"\n`);
  chmodSync(inside, 0o755);
  browser = await launch(inside);
});

after(async () => {
  await browser?.close();
  if (folder) rmSync(folder, { recursive: true, force: true });
});

/** A client with a watchdog, as in the guide on browsers, which records what it receives. */
function watchdog() {
  window.seen = { ids: [], opened: 0, silences: 0 };
  let source, cursor = "0", watchdog, interval = 15_000;
  const open = () => {
    source = new EventSource(`/feed?last_event_id=${cursor}`);
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => (seen.silences++, source.close(), open()), 2.5 * interval);
    };
    alive();
    source.onopen = () => seen.opened++;
    source.onmessage = ({ lastEventId }) => (alive(), seen.ids.push(Number(lastEventId)), (cursor = lastEventId));
    source.addEventListener("hero.heartbeat", ({ data }) => ((interval = JSON.parse(data).interval_ms), alive()));
  };
  open();
}

for (const [when, peerTimeout, down] of [["before", "20s", 2_000], ["after", "2s", 6_000]]) {
  test(`plugged in again ${when} the peer timeout, a page misses nothing`, async () => {
    const settings = ["HeartbeatEvent=true", "HeartbeatInterval=4s", `PeerTimeout=${peerTimeout}`, "WriteTimeout=60s", "Retry=1s"];
    const server = await new Server(["--interval-ms", "50", ...settings.flatMap((setting) => ["--set", setting])], { host: CABLE_ADDRESS }).start();
    const page = await browser.newPage();
    try {
      await page.goto(server.url);
      await page.evaluate(watchdog);
      const seen = () => page.evaluate(() => window.seen);
      await until("the first events", seen, ({ ids }) => ids.length > 40);
      link("down");
      await sleep(down);
      const { open, closed } = await server.stats();
      const before = await seen();
      link("up");
      const took = await until("news", seen, ({ ids }) => ids.length > before.ids.length + (down + 2_000) / 50, 30_000);
      const { ids, opened, silences } = await seen();
      figure({ cable: when, down_ms: down, caught_up_after_ms: Math.round(took), events: ids.length, opened, silences, open, closed });
      assert.deepEqual(ids, Array.from(ids, (_, place) => place + 1), "every event once and in order");
      if (when === "before") {
        assert.deepEqual([opened, silences, open, closed], [1, 0, 1, {}], "the same connection");
      } else {
        assert.deepEqual([open, closed], [0, { peer_timeout: 1 }]);
        assert.ok(opened === 2 && silences >= 1, "only the watchdog could tell");
      }
    } finally {
      link("up");
      await page.close();
      await server.stop();
    }
  });
}
