import { createEventSource } from "eventsource-client";

export default ({ url, setting }, report) => {
  const end = (line) => (source.close(), report({ end: true, ...line }), process.exit());
  // It retries after every status but 204.
  const checked = async (url, init) => {
    const response = await fetch(url, init);
    if ([401, 403, 404, 410].includes(response.status)) end({ status: response.status, error: "refused" });
    return response;
  };
  const source = createEventSource({
    url,
    onConnect: () => report({ open: true }),
    onDisconnect: () => report({ cut: true }),
    onMessage: ({ event, id, data }) => report({ event: event ?? "message", id, data }),
    ...(setting === "fetch" ? { fetch: checked } : {}),
  });
  setInterval(() => source.readyState === "closed" && end(), 50);
};
