// Shared by the trials: the server, the browser, bounded waits.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { accessSync, constants, mkdirSync, writeFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { join, resolve } from "node:path";

export const SOON = 15_000;

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
export const figure = (what) => console.log(`figure ${JSON.stringify(what)}`);

/** Returns the path of a program that must exist. If it is missing, the run fails and names the cure. */
export function program(path, name, cure) {
  try {
    accessSync(path ?? "", constants.X_OK);
  } catch {
    throw new Error(`${name} is missing (${path ? `nothing to run at ${path}` : "no path given"}). ${cure}`);
  }
  return resolve(path);
}

/** Waits until `holds` is true of what `look` returns. Returns how long that took. */
export async function until(what, look, holds, limit = SOON, pause = 50) {
  const start = performance.now();
  for (;;) {
    const seen = await look();
    const took = performance.now() - start;
    if (holds(seen)) return took;
    if (took > limit) assert.fail(`${what}: not within ${limit} ms. Last seen: ${JSON.stringify(seen)}`);
    await sleep(pause);
  }
}

export class Server {
  constructor(args, { scheme = "http", host = "127.0.0.1", command = "serve" } = {}) {
    Object.assign(this, { args, scheme, command, listen: `${host}:0` });
  }

  async start() {
    const trial = program(process.env.TRIAL_BIN, "The server for trials", "Build it with `cargo build -p hero-sse-tests --bin trial` and set TRIAL_BIN to target/debug/trial.");
    this.child = spawn(trial, [this.command, "--listen", this.listen, ...this.args], { stdio: ["ignore", "pipe", "inherit"] });
    this.gone = new Promise((done) => this.child.once("exit", done));
    const line = await new Promise((done, fail) => {
      this.child.stdout.once("data", (text) => done(String(text)));
      this.gone.then((code) => fail(new Error(`The server ended with ${code} before it listened.`)));
    });
    // Keeps this address, also after a restart.
    this.listen = JSON.parse(line.split("\n")[0]).listening;
    this.url = `${this.scheme}://${this.listen}`;
    return this;
  }

  async stop(signal = "SIGTERM") {
    this.child.kill(signal);
    await this.gone;
  }

  /** Returns the server's figures. Accepts any certificate. */
  stats = () =>
    new Promise((done, fail) => {
      const client = this.scheme === "https" ? https : http;
      const asked = client.get(`${this.url}/stats`, { agent: false, rejectUnauthorized: false, timeout: SOON }, (answer) => {
        let text = "";
        answer.setEncoding("utf8").on("data", (more) => (text += more));
        answer.on("end", () => done(JSON.parse(text))).on("error", fail);
      });
      asked.on("error", fail).on("timeout", () => asked.destroy(new Error("no answer in time")));
    });

  /** Waits until this many streams are open. Returns how long that took. */
  open = (count, limit = SOON) => until(`${count} open streams`, this.stats, ({ open, alive }) => open === count && alive === count, limit, 10);
}

export const chromium = () =>
  program(process.env.CHROMIUM ?? "/usr/bin/chromium", "Chromium", "Install it (on Debian: apt-get install chromium) or set CHROMIUM to its path.");

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

async function playwright() {
  const found = await import("playwright-core").catch((cause) => {
    throw new Error("playwright-core is missing. Run `npm ci` in tests/browser.", { cause });
  });
  return found.chromium;
}

export const launch = async (executablePath = chromium()) => (await playwright()).launch({ executablePath, args: FLAGS });

/** Starts a browser with a new profile in this folder. It sends third-party cookies as well. */
export async function launchWithCookies(folder, more = []) {
  mkdirSync(join(folder, "Default"));
  writeFileSync(join(folder, "Default", "Preferences"), JSON.stringify({ profile: { cookie_controls_mode: 0, block_third_party_cookies: false } }));
  return (await playwright()).launchPersistentContext(folder, { executablePath: chromium(), args: [...FLAGS, ...more], ignoreHTTPSErrors: true });
}
