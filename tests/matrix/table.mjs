// The clients, and what each is expected to do. Without an expectation a cell is `ok`. A fault of the client's own is
// written with its note. The run also fails if the fault does not happen.

export const COLUMNS = {
  reads: "reads",
  last: "last event",
  kill: "kill",
  retry: "`retry`",
  drain: "drain",
  age: "max age",
  cut: "cut",
  own: "its own error",
  refused: "401",
  limited: "limit",
};

const NA = "n.a.";
const fault = (sees, note) => ({ sees, note });

export const notes = {
  status: "It retries after a final status (`401`, `403`) for ever.",
  "status-hidden": "It retries after a final status, and its interface does not show that.",
  clean: "It takes a clean end for the end, and does not come back. `clean_end = false` breaks the body in its place.",
  204: "It does not know that `204` means the end, and comes back for ever.",
  retry: "It ignores the server's `retry`, and begins with 2 ms.",
  data: "It keeps only the last line of the data, and removes spaces around it. JSON has one line.",
  spaces: "It removes all spaces in front of the data. JSON has none.",
  raises: "It raises an exception when the connection breaks, and cannot go on.",
};

const page = (name, driver, more) => ({ name, in: "page", driver, ...more });
const node = (name, driver, more) => ({ name, in: "node", driver, ...more });
const python = (name, driver, more) => ({ name: `PyPI ${name}`, in: "python", driver, ...more });
const rust = (name, driver, more) => ({ name: `crate ${name}`, in: "rust", driver, ...more });
const often = true; // also in ./tests/run
const post = true;

// `jitter` is the part of `retry` by which a client's own wait differs at random. The rows with a setting show that it
// mends what the row before it does wrong.
export const clients = [
  page("EventSource, Chromium", "event-source.js", { often }),
  node("npm eventsource", "eventsource.js", { often }),
  node("npm eventsource-client", "eventsource-client.js", { often, expects: { refused: fault("loops", "status") } }),
  node("npm eventsource-client, own `fetch`", "eventsource-client.js", { setting: "fetch" }),
  page("npm @microsoft/fetch-event-source", "fetch-event-source.js", {
    expects: { drain: fault("stops", "clean"), age: fault("stops", "clean"), refused: fault("loops", "status"), limited: fault("quiet", "clean") },
  }),
  page("npm @microsoft/fetch-event-source, own `onopen`, `onclose` and `onerror`", "fetch-event-source.js", { setting: "close", often }),
  page("npm @microsoft/fetch-event-source, `clean_end = false`", "fetch-event-source.js", {
    settings: ["CleanEnd=false"],
    often,
    expects: { refused: fault("loops", "status") },
  }),
  page("npm @microsoft/fetch-event-source, POST", "fetch-event-source.js", { setting: "once", post, often }),
  page("npm reconnecting-eventsource", "reconnecting-eventsource.js", { expects: { last: fault("loops", "204"), refused: fault("loops", "status-hidden") } }),
  page("npm reconnecting-eventsource, closed by the page", "reconnecting-eventsource.js", {
    setting: "close",
    expects: { refused: fault("loops", "status-hidden") },
  }),
  page("npm event-source-polyfill", "event-source-polyfill.js"),
  node("npm event-source-plus", "event-source-plus.js", {
    expects: { reads: fault("differs", "data"), last: fault("loops", "204"), retry: fault("sooner", "retry"), refused: fault("loops", "status") },
  }),
  node("npm event-source-plus, closed by the page", "event-source-plus.js", {
    setting: "close",
    expects: { reads: fault("differs", "data"), retry: fault("sooner", "retry") },
  }),
  node("npm event-source-plus, POST", "event-source-plus.js", { setting: "once", post, expects: { reads: fault("differs", "data") } }),
  page("npm htmx.org 2, htmx-ext-sse", "htmx.js", { expects: { last: fault("loops", "204"), refused: fault("loops", "status") } }),
  page("npm htmx.org 2, htmx-ext-sse, `sse-close` and `hx-on:htmx:sse-error`", "htmx.js", { setting: "close" }),
  page("npm htmx.org 4, hx-sse", "htmx4.js", { jitter: 0.3, expects: { last: fault("loops", "204") } }),
  page("npm htmx.org 4, hx-sse, `hx-sse:close`", "htmx4.js", { setting: "close", jitter: 0.3 }),
  page("npm @hotwired/turbo", "turbo.js", { dialect: "turbo", fields: ["data"] }),
  page("npm @starfederation/datastar", "datastar.js", {
    dialect: "datastar",
    fields: ["data"],
    expects: { drain: fault("stops", "clean"), age: fault("stops", "clean"), limited: fault("quiet", "clean") },
  }),
  page("npm @starfederation/datastar, `clean_end = false`", "datastar.js", { dialect: "datastar", fields: ["data"], settings: ["CleanEnd=false"] }),
  node("npm openai", "openai.js", { post, protocol: "openai", often }),
  node("npm @anthropic-ai/sdk", "anthropic.js", { post, protocol: "anthropic", often }),
  node("npm ai, DefaultChatTransport", "ai.js", { post, protocol: "ai", often }),
  node("npm graphql-sse", "graphql-sse.js", { post, protocol: "graphql", often }),
  node("npm @modelcontextprotocol/client", "mcp.js", { post, protocol: "mcp", often }),
  python("openai", "py_openai.py", { post, protocol: "openai", often }),
  python("httpx-sse", "py_httpx_sse.py", { post, often }),
  python("sseclient-py", "py_sseclient.py", { post }),
  python("aiohttp-sse-client2", "py_aiohttp.py", {
    expects: { reads: fault("differs", "spaces"), kill: fault("stops", "raises"), retry: fault("stops", "raises") },
  }),
  python("aiohttp-sse-client2, in a loop", "py_aiohttp.py", { setting: "again", expects: { reads: fault("differs", "spaces") } }),
  rust("eventsource-client", "eventsource-client", { jitter: 0.5, expects: { last: fault("loops", "204") } }),
  rust("eventsource-client, closed by the program", "eventsource-client", { setting: "close", jitter: 0.5 }),
  rust("sse-stream", "sse-stream", { post }),
  node("curl", "curl.js", { post, often }),
];
