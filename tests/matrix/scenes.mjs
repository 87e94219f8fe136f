// The streams that the clients read. The server plays them; `content` is what a client must report of one. The last
// event has the name `done`, as an application might call it.

const json = JSON.stringify;
const range = (count) => Array.from({ length: count }, (_, index) => index);

/** Everything that an event can be. The ids are those of the events, so that a client's cursor shows. */
const shapes = [
  { id: "1", data: "unnamed" },
  { id: "2", event: "named", data: json({ n: 2 }) },
  { id: "3", event: "named", data: "two\nlines" },
  { id: "4", data: " a space on each side " },
  { id: "5", event: "named", data: "ünïcödé 🦀" },
  { id: "6", event: "done", data: "the last" },
];
/** Forty numbers, long enough for a cut in the middle. */
const count = range(40).map((n) => ({ id: String(n + 1), data: String(n + 1), ...(n === 39 ? { event: "done" } : {}) }));
const three = [...count.slice(0, 2), { id: "3", event: "done", data: "3" }];
const EVERY = 40;

const chunk = (delta, finish_reason = null) => ({
  data: json({ id: "c1", object: "chat.completion.chunk", created: 1, model: "m", choices: [{ index: 0, delta, finish_reason }] }),
});
const words = ["Three ", "short ", "words"];
const openai = words.map((content) => chunk({ content }));
const named = (event, data) => ({ event, data: json({ type: event, ...data }) });
const message = { id: "m1", type: "message", role: "assistant", model: "m", content: [], stop_reason: null, stop_sequence: null, usage: { input_tokens: 1, output_tokens: 1 } };
const anthropic = [
  named("message_start", { message }),
  named("content_block_start", { index: 0, content_block: { type: "text", text: "" } }),
  named("ping", {}),
  ...words.map((text) => named("content_block_delta", { index: 0, delta: { type: "text_delta", text } })),
];
const part = (type, more) => ({ data: json({ type, ...more }) });
const ai = [part("start", { messageId: "m1" }), part("text-start", { id: "t1" }), ...words.map((delta) => part("text-delta", { id: "t1", delta }))];
const graphql = words.map((word) => ({ event: "next", data: json({ data: { word } }) }));
const mcp = words.map((data) => ({ data: json({ jsonrpc: "2.0", method: "notifications/message", params: { level: "info", data } }) }));
const result = (text) => ({ jsonrpc: "2.0", id: 1, result: { text } });
const DONE = { data: "[DONE]" };

/** A protocol's answer in each of its forms. `rest` is what follows the words, `own` its own way to report an error. */
const answer = (name, start, rest, own) => ({
  [`${name}-whole`]: { events: [...start, ...rest], end: "last", every_ms: EVERY, content: words },
  [`${name}-slow`]: { events: [...start, ...rest], end: "last", every_ms: 500, content: words }, // with heartbeats between
  [`${name}-cut`]: { events: start, end: "error", every_ms: EVERY, content: words },
  [`${name}-own`]: { events: [...start, ...own], end: "last", every_ms: EVERY, content: words },
});

/** The same events in the form that a library for pages reads. */
const dialect = (name, wrap) => {
  const wrapped = (events) => events.map((event) => ({ id: event.id, ...wrap(event.data.trim()) }));
  const contents = (events) => events.map(({ data }) => ({ data: data.trim() }));
  return {
    [`${name}-shapes`]: { ...scenes.shapes, events: wrapped(shapes), content: contents(shapes) },
    [`${name}-three`]: { ...scenes.three, events: wrapped(three), content: contents(three) },
    [`${name}-count`]: { ...scenes.count, events: wrapped(count), content: contents(count) },
  };
};

export const scenes = {
  shapes: { events: shapes, end: "last", every_ms: 10, content: shapes },
  count: { events: count, end: "last", every_ms: EVERY, content: count },
  cut: { events: count.slice(0, 3), end: "error", every_ms: EVERY, content: count.slice(0, 3) },
  three: { events: three, end: "last", content: three },
  never: { events: [{ data: "first" }], end: "never" },
  ...answer("openai", openai, [chunk({}, "stop"), DONE], [{ data: json({ error: { message: "the model failed", type: "server_error", code: null } }) }]),
  ...answer(
    "anthropic",
    anthropic,
    [
      named("content_block_stop", { index: 0 }),
      named("message_delta", { delta: { stop_reason: "end_turn", stop_sequence: null }, usage: { output_tokens: 3 } }),
      named("message_stop", {}),
    ],
    [named("error", { error: { type: "overloaded_error", message: "the model failed" } })],
  ),
  ...answer("ai", ai, [part("text-end", { id: "t1" }), part("finish"), DONE], [part("error", { errorText: "the model failed" }), DONE]),
  ...answer("graphql", graphql, [{ event: "complete", data: "" }], [{ event: "next", data: json({ errors: [{ message: "the model failed" }] }) }, { event: "complete", data: "" }]),
  ...answer("mcp", mcp, [{ data: json(result("done")) }], [{ data: json({ jsonrpc: "2.0", id: 1, error: { code: -32000, message: "the model failed" } }) }]),
  "mcp-json": { status: 200, json: result("json") },
  "mcp-accepted": { status: 202 },
};
scenes["mcp-whole"].content = [...words, "done", "json", "accepted"];
scenes["mcp-slow"].content = [...words, "done"];
Object.assign(
  scenes,
  dialect("turbo", (data) => ({ data: `<turbo-stream action="append" target="list"><template>${data}</template></turbo-stream>` })),
  dialect("datastar", (data) => ({ event: "datastar-merge-fragments", data: `fragments <div id="n"><b>${data}</b></div>`.replaceAll("\n", "\nfragments ") })),
);
