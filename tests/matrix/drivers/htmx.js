import htmx from "htmx.org";

export default ({ url, setting }, report) => {
  window.htmx = htmx;
  import("htmx-ext-sse").then(() => {
    const { body } = document;
    body.addEventListener("htmx:sseOpen", () => report({ open: true }));
    body.addEventListener("htmx:sseError", ({ detail }) => report(detail.source.readyState === 2 ? { error: "closed" } : { cut: true }));
    body.addEventListener("htmx:sseClose", () => report({ end: true }));
    body.addEventListener("htmx:sseMessage", ({ detail: { type, lastEventId, data } }) => report({ event: type, id: lastEventId, data }));
    const settings = {
      defaults: "",
      // The extension opens a closed source again, unless its element has left the page.
      close: `sse-close="done" hx-on:htmx:sse-error="event.detail.source.readyState === 2 && this.remove()"`,
    };
    body.innerHTML = `<div hx-ext="sse" sse-connect="${url}" ${settings[setting ?? "defaults"]}><p sse-swap="message,named,done"></p></div>`;
    htmx.process(body);
  });
};
