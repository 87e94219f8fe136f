import htmx from "htmx4";

export default ({ url, setting }, report) => {
  window.htmx = htmx;
  import("htmx4/dist/ext/hx-sse.js").then(() => {
    const { body } = document;
    body.addEventListener("htmx:sse:after:connection", () => report({ open: true }));
    body.addEventListener("htmx:sse:error", ({ detail }) => report({ cut: true, status: detail.status, message: String(detail.error) }));
    body.addEventListener("htmx:response:error", ({ detail }) => report({ error: "refused", status: detail.ctx.response.status }));
    body.addEventListener("htmx:sse:close", ({ detail }) => report({ end: true, reason: detail.reason }));
    body.addEventListener("htmx:sse:after:message", ({ detail: { message } }) => report({ event: message.event || "message", id: message.id, data: message.data }));
    const close = setting === "close" ? `hx-sse:close="done"` : "";
    body.innerHTML = `<div hx-sse:connect="${url}" ${close}></div>`;
    htmx.process(body);
  });
};
