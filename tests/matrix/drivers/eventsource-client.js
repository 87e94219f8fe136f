import { createEventSource } from "eventsource-client";

export default ({ url, method, body, setting }, report) => {
  const source = createEventSource({
    url,
    method,
    body,
    onConnect: () => report({ open: true }),
    onDisconnect: () => report({ cut: true }),
    onMessage: ({ event, id, data }) => {
      report({ event: event ?? "message", id, data });
      if (setting === "close" && event === "hero.close" && !JSON.parse(data).reconnect) source.close(), report({ end: true });
    },
  });
  setInterval(() => source.readyState === "closed" && (report({ end: true }), process.exit()), 50);
};
