// The examples `llm` and `htmx`, read by the clients that they are made for. Every wait is bounded.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";

import { DefaultChatTransport, readUIMessageStream } from "ai";
import OpenAI from "openai";

import { SOON, launch, program, sleep, until } from "../browser/trial.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const PYTHON = process.env.CLIENTS_PYTHON ?? here("venv/bin/python");
const PROMPT = "one two three four five";
const ANSWER = `You wrote: ${PROMPT}`;

/** Starts an example. `{ url, log(), stop(signal) }` */
async function example(name, listen = "127.0.0.1:0") {
  const path = join(dirname(process.env.TRIAL_BIN ?? here("../../target/debug/trial")), name);
  const child = spawn(program(path, `The example ${name}`, "Build it with `cargo build --workspace --bins`."), ["--listen", listen], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, NO_COLOR: "1" },
  });
  let out = "", log = "";
  child.stdout.on("data", (text) => (out += text));
  child.stderr.on("data", (text) => (log += text));
  const gone = new Promise((done) => child.once("exit", done));
  await until(`an address of ${name}`, () => out, (out) => out.includes("\n"));
  const url = /http:\S+/.exec(out)[0];
  return { url, log: () => log, stop: (signal = "SIGKILL") => (child.kill(signal), gone) };
}

let llm;
before(async () => (llm = await example("llm")));
after(() => llm?.stop());

const openai = (apiKey = "sk-ann", { url } = llm) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0, timeout: SOON });
const question = (model = "toy") => ({ model, messages: [{ role: "user", content: PROMPT }] });
const ask = (client, model, options) => client.chat.completions.create({ ...question(model), stream: true }, options);

/** Reads an answer to its end, and returns what was read, with the error that ended it. */
async function read(stream) {
  let text = "";
  try {
    for await (const { choices } of stream) text += choices[0].delta.content ?? "";
  } catch (error) {
    return { text, error };
  }
  return { text };
}

test("npm openai reads a whole answer, as a stream and as JSON", async () => {
  assert.deepEqual(await read(await ask(openai())), { text: ANSWER });
  const { choices } = await openai().chat.completions.create(question());
  assert.equal(choices[0].message.content, ANSWER);
});

test("npm openai throws when the answer is cut, and when the model reports an error", async () => {
  const cut = await read(await ask(openai(), "toy-unreachable"));
  assert.ok(cut.text === "You wrote: one " && cut.error, JSON.stringify(cut));
  const failed = await read(await ask(openai(), "toy-overloaded"));
  assert.equal(failed.text, cut.text);
  assert.match(failed.error.message, /the model is overloaded/);
});

test("npm openai is refused and limited in OpenAI's own format", async () => {
  await assert.rejects(ask(openai("wrong")), (error) => error instanceof OpenAI.AuthenticationError && /not an API key/.test(error.message) && error.type === "authentication_error");
  await assert.rejects(ask(openai(), "gpt"), (error) => error instanceof OpenAI.NotFoundError && /there is no model/.test(error.message));
  const two = [await ask(openai("sk-bob")), await ask(openai("sk-bob"))];
  await assert.rejects(ask(openai("sk-bob")), (error) => error instanceof OpenAI.RateLimitError && Number(error.headers.get("retry-after")) > 0);
  for (const answer of two) assert.deepEqual(await read(answer), { text: ANSWER });
  assert.deepEqual(await read(await ask(openai("sk-bob"))), { text: ANSWER });
});

test("an answer is cancelled when its client leaves", async () => {
  const cancelled = () => llm.log().split("was cancelled").length;
  const count = cancelled();
  const leaving = new AbortController();
  const answer = await ask(openai("sk-cid"), "toy", { signal: leaving.signal });
  for await (const _ of answer) break;
  leaving.abort();
  await until("the model's answer was dropped", cancelled, (now) => now === count + 1);
});

test("a server that stops finishes its answers", async () => {
  const server = await example("llm");
  const answer = await ask(openai("sk-ann", server));
  const stopped = server.stop("SIGTERM");
  assert.deepEqual(await read(answer), { text: ANSWER });
  assert.equal(await stopped, 0);
});

test("PyPI openai reads whole, cut, refused and limited answers", async () => {
  /** `{ text, error, status }` */
  const run = (model, token) =>
    new Promise((done) => {
      const task = { url: llm.url, base: `${llm.url}/v1`, model, token, prompt: PROMPT, retries: 0 };
      const child = spawn(program(PYTHON, "The Python of the clients", "Call ./tests/clients"), [here("drivers/py_openai.py"), JSON.stringify(task)], { stdio: ["ignore", "pipe", "inherit"], timeout: 60_000 });
      let out = "";
      child.stdout.on("data", (text) => (out += text));
      child.once("close", () => {
        const lines = out.trim().split("\n").map((line) => JSON.parse(line));
        const { error, status } = lines.at(-1);
        done({ text: lines.map(({ data }) => data ?? "").join(""), error, status });
      });
    });
  const [whole, cut, failed, refused] = await Promise.all([run("toy", "sk-py"), run("toy-unreachable", "sk-pz"), run("toy-overloaded", "sk-pq"), run("toy", "wrong")]);
  assert.deepEqual([whole.text, whole.error], [ANSWER, undefined]);
  assert.ok(cut.text === "You wrote: one " && cut.error, JSON.stringify(cut));
  assert.match(failed.error, /the model is overloaded/);
  assert.match(refused.error, /^AuthenticationError.*not an API key/);
  assert.equal(refused.status, 401);
  const held = new AbortController();
  for (const _ of [1, 2]) await ask(openai("sk-pr"), "toy-slow", { signal: held.signal });
  const limited = await run("toy", "sk-pr");
  held.abort();
  assert.match(limited.error, /^RateLimitError/);
  assert.equal(limited.status, 429);
});

/** What `useChat` makes of an answer: the text, and the error. */
async function chat(model) {
  const transport = new DefaultChatTransport({ api: `${llm.url}/api/chat`, body: { model } });
  const messages = [{ id: "1", role: "user", parts: [{ type: "text", text: PROMPT }] }];
  const seen = { text: "", error: undefined };
  try {
    const stream = await transport.sendMessages({ chatId: "c", messages, trigger: "submit-message" });
    for await (const { parts } of readUIMessageStream({ stream, terminateOnError: true })) {
      seen.text = parts.map(({ text }) => text ?? "").join("");
    }
  } catch (error) {
    seen.error = String(error);
  }
  return seen;
}

test("npm ai reads whole, cut and failed answers", async () => {
  assert.deepEqual(await chat("toy"), { text: ANSWER, error: undefined });
  assert.match((await chat("toy-overloaded")).error, /the model is overloaded/);
  const cut = await chat("toy-unreachable");
  assert.ok(cut.text === "You wrote: one " && cut.error, JSON.stringify(cut));
  assert.match((await chat("gpt")).error, /there is no such model/);
});

// ---- htmx

/** A page of the example in a browser, which gets htmx from its package in place of the network. */
async function visit(browser, url) {
  const page = await browser.newPage();
  await page.route("https://cdn.jsdelivr.net/npm/**", (route) => {
    const path = new URL(route.request().url()).pathname.replace("/npm/", "").replace(/@[\d.]+/, "");
    return route.fulfill({ path: here(`node_modules/${path}`), headers: { "access-control-allow-origin": "*" } });
  });
  const opened = page.waitForRequest((request) => request.url().includes("/tasks/stream"), { timeout: SOON });
  await page.goto(url);
  await opened;
  return page;
}
const items = (page) => page.locator("#tasks li").allTextContents();
const shows = (page, ...tasks) => until(`the tasks ${tasks}`, () => items(page), (seen) => isDeepStrictEqual(seen, tasks));
async function add(page, text) {
  await page.fill("input", text);
  await page.click("text=Add");
}

test("htmx shows the tasks of all visitors, through restarts, to the last event", async () => {
  const browser = await launch();
  let server = await example("htmx");
  try {
    const [one, two] = [await visit(browser, server.url), await visit(browser, server.url)];
    await add(one, "first");
    await Promise.all([one, two].map((page) => shows(page, "first")));
    await add(two, "<b>second</b> & \"third\"");
    await Promise.all([one, two].map((page) => shows(page, "first", "<b>second</b> & \"third\"")));
    // What the page already had does not come again.
    await shows(await visit(browser, server.url), "first", "<b>second</b> & \"third\"");

    // The server forgets its tasks. The pages notice, and show the list that there is now.
    const { host } = new URL(server.url);
    await server.stop("SIGTERM");
    server = await example("htmx", host);
    await Promise.all([one, two].map((page) => shows(page)));
    await add(one, "fourth");
    await Promise.all([one, two].map((page) => shows(page, "fourth")));

    let requests = 0;
    one.on("request", () => requests++);
    await two.click("text=Close the list");
    await Promise.all([one, two].map((page) => page.waitForSelector("text=The list is closed.", { timeout: SOON })));
    await sleep(4_000);
    assert.equal(requests, 0, "the page does not come back after the last event");
  } finally {
    await browser.close();
    await server.stop();
  }
});
