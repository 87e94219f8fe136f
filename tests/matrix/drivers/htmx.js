import htmx from "htmx.org";

export default ({ url, setting }, report) => {
  window.htmx = htmx;
  import("htmx-ext-sse").then(() => {
    const { body } = document;
    body.addEventListener("htmx:sseOpen", () => report({ open: true }));
    body.addEventListener("htmx:sseError", ({ detail }) => report({ cut: true, closed: detail.source.readyState === 2 }));
    body.addEventListener("htmx:sseClose", () => report({ end: true }));
    body.addEventListener("htmx:sseMessage", ({ detail: { type, lastEventId, data } }) => report({ event: type, id: lastEventId, data }));
    const close = setting === "close" ? `sse-close="done"` : "";
    body.innerHTML = `<div hx-ext="sse" sse-connect="${url}" ${close}><p sse-swap="message,named,done"></p></div>`;
    htmx.process(body);
  });
};
