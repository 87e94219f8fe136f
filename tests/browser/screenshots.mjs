// Takes screenshots of the live example's page: every state, light and dark, on a laptop and on a phone.
//
//   cargo build --bin live && cd tests/browser && npm ci && node screenshots.mjs FOLDER

import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

import { killLive, startLive } from "./live.mjs";
import { launch, sleep } from "./trial.mjs";

const SIZES = { laptop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };
const BUILD = 180_000;

const [target] = process.argv.slice(2);
if (!target) {
  console.error("usage: node screenshots.mjs FOLDER");
  process.exit(2);
}
mkdirSync(target, { recursive: true });

const folder = mkdtempSync(join(tmpdir(), "hero-sse-screenshots-"));
// A slow cargo, so that a screenshot of a running build is possible.
const slowCargo = join(folder, "slow-cargo");
writeFileSync(slowCargo, '#!/bin/sh\nsleep 2\nexec cargo "$@"\n');
chmodSync(slowCargo, 0o755);

/** Walks through all states of the page, and takes a screenshot of each. */
async function walk(browser, size, scheme) {
  let server = await startLive(folder, { env: { CARGO: slowCargo } });
  const context = await browser.newContext({ viewport: SIZES[size], colorScheme: scheme, deviceScaleFactor: size === "phone" ? 2 : 1 });
  const page = await context.newPage();
  const shoot = (state, fullPage = size === "phone") => page.screenshot({ path: resolve(target, `${state}-${size}-${scheme}.png`), fullPage });
  const reach = (name, state) => page.waitForSelector(`[data-stream=${name}][data-state=${state}]`);
  const build = async (phase) => {
    await page.click("#start-build");
    await page.waitForSelector(`#build-list li:first-child[data-phase=building]`);
    await sleep(1200); // into the build, but not to its end
    if (phase === "finished") await shoot("build-running");
    await page.waitForSelector(`#build-list li:first-child[data-phase=${phase}]`, { timeout: BUILD });
    await sleep(1500);
    await shoot(`build-${phase}`);
  };
  try {
    await page.goto(server.url.href);
    for (const name of ["usage", "audit", "builds"]) await reach(name, "live");
    await sleep(300);
    await shoot("start");
    await sleep(8000);
    await build("finished");
    if (size === "laptop") await shoot("whole-page", true);
    await page.locator("#build-list details summary").first().click();
    await page.locator("#break-it").check();
    await build("failed");

    await page.locator("[name=permission][value='usage.read']").uncheck();
    await reach("usage", "refused");
    await sleep(1000);
    await shoot("permission-missing");
    await page.locator("[name=permission][value='usage.read']").check();
    await reach("usage", "live");

    await page.click("#sign-out");
    await sleep(1000);
    await shoot("signed-out");

    await page.locator("#auto-renew").uncheck();
    await page.fill("#ttl", "3");
    await page.click("#sign-in");
    for (const name of ["usage", "audit", "builds"]) await reach(name, "unauthorized");
    await sleep(1500);
    await shoot("expired");
    await page.fill("#ttl", "300");
    await page.click("#renew");
    await page.locator("#auto-renew").check();
    await reach("usage", "live");

    await killLive(server);
    await reach("usage", "reconnecting");
    await sleep(4000);
    await shoot("server-gone");
    server = await startLive(folder, { listen: server.url.host, env: { CARGO: slowCargo } });
    for (const name of ["usage", "audit", "builds"]) await reach(name, "live");
    await sleep(3000);
    await shoot("server-restarted");
  } finally {
    await context.close();
    await killLive(server);
  }
}

const browser = await launch();
try {
  for (const size of Object.keys(SIZES)) for (const scheme of ["light", "dark"]) await walk(browser, size, scheme);
} finally {
  await browser.close();
  rmSync(folder, { recursive: true, force: true });
}
