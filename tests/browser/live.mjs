// Starts and stops the live example, for its browser test and its screenshots.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

import { SOON, program } from "./trial.mjs";

const BUILT = fileURLToPath(new URL("../../target/debug/live", import.meta.url));

/** Starts the program in `folder`, and waits for the line with its address. `{ child, url, exited }` */
export async function startLive(folder, { listen = "127.0.0.1:0", args = [], env = {} } = {}) {
  const live = program(process.env.LIVE_BIN ?? BUILT, "The live example", "Build it with `cargo build --bin live`, or set LIVE_BIN to its path.");
  const child = spawn(live, ["--listen", listen, ...args], { cwd: folder, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  child.stderr.on("data", (text) => (log = (log + text).slice(-4000)));
  const exited = new Promise((done) => child.once("exit", done));
  const url = await new Promise((done, fail) => {
    const late = setTimeout(() => fail(new Error(`The server printed no address within ${SOON} ms. Its log:\n${log}`)), SOON);
    let line = "";
    child.stdout.on("data", (text) => {
      line += text;
      const found = /^listening on (http:\/\/\S+)/m.exec(line);
      if (found) clearTimeout(late), done(new URL(found[1]));
    });
    child.once("error", (error) => (clearTimeout(late), fail(error)));
    exited.then((code) => (clearTimeout(late), fail(new Error(`The server exited with ${code} before it printed an address. Its log:\n${log}`))));
  });
  return { child, url, exited };
}

/** Kills the program, also when it is stopped. */
export async function killLive({ child, exited }) {
  child.kill("SIGCONT");
  child.kill("SIGKILL");
  await exited;
}
