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
};

const page = (name, driver, more) => ({ name, in: "page", driver, ...more });
const node = (name, driver, more) => ({ name, in: "node", driver, ...more });
const python = (name, driver, more) => ({ name: `PyPI ${name}`, in: "python", driver, ...more });
const often = true; // also in ./tests/run
const post = true;

export const clients = [
  page("EventSource, Chromium", "event-source.js", { often }),
  node("npm eventsource", "eventsource.js", { often }),
  node("npm eventsource-client", "eventsource-client.js", { often }),
  node("npm eventsource-client, closed by the page", "eventsource-client.js", { setting: "close" }),
  page("npm @microsoft/fetch-event-source", "fetch-event-source.js", { often }),
  page("npm @microsoft/fetch-event-source, own onclose and onerror", "fetch-event-source.js", { setting: "close", often }),
  page("npm @microsoft/fetch-event-source, POST", "fetch-event-source.js", { setting: "once", post, often }),
  page("npm reconnecting-eventsource", "reconnecting-eventsource.js"),
  page("npm reconnecting-eventsource, closed by the page", "reconnecting-eventsource.js", { setting: "close" }),
  page("npm event-source-polyfill", "event-source-polyfill.js"),
  node("npm event-source-plus", "event-source-plus.js"),
  node("npm event-source-plus, closed by the page", "event-source-plus.js", { setting: "close" }),
  node("npm event-source-plus, POST", "event-source-plus.js", { setting: "once", post }),
  page("npm htmx.org 2, htmx-ext-sse", "htmx.js"),
  page("npm htmx.org 2, htmx-ext-sse, sse-close", "htmx.js", { setting: "close" }),
  page("npm htmx.org 4, hx-sse", "htmx4.js"),
  page("npm htmx.org 4, hx-sse, hx-sse:close", "htmx4.js", { setting: "close" }),
  page("npm @hotwired/turbo", "turbo.js", { dialect: "turbo", fields: ["data"] }),
  page("npm @starfederation/datastar", "datastar.js", { dialect: "datastar", fields: ["data"] }),
  node("npm openai", "openai.js", { post, protocol: "openai", often }),
  node("npm @anthropic-ai/sdk", "anthropic.js", { post, protocol: "anthropic", often }),
  node("npm ai, DefaultChatTransport", "ai.js", { post, protocol: "ai", often }),
  node("npm graphql-sse", "graphql-sse.js", { post, protocol: "graphql", often }),
  node("npm @modelcontextprotocol/client", "mcp.js", { post, protocol: "mcp", often }),
  python("openai", "py_openai.py", { post, protocol: "openai", often }),
  python("httpx-sse", "py_httpx_sse.py", { post, often }),
  python("sseclient-py", "py_sseclient.py", { post }),
  python("aiohttp-sse-client2", "py_aiohttp.py"),
  { name: "crate eventsource-client", in: "rust", driver: "eventsource-client" },
  { name: "crate sse-stream", in: "rust", driver: "sse-stream", post },
  node("curl", "curl.js", { post, often }),
];
