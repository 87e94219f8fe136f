import { EventSourcePlus } from "event-source-plus";

export default ({ url, method, body, headers, setting }, report) => {
  const source = new EventSourcePlus(url, { method, body, headers, ...(setting === "once" ? { retryStrategy: "on-error", maxRetryCount: 1 } : {}) });
  const controller = source.listen({
    onMessage: ({ event, id, data }) => {
      report({ event, id, data });
      if (setting === "close" && event === "hero.close" && !JSON.parse(data).reconnect) controller.abort();
    },
    onResponse: () => report({ open: true }),
    onRequestError: ({ error }) => report({ cut: true, error: String(error) }),
    onResponseError: ({ response }) => {
      report({ error: "refused", status: response.status });
      if (setting === "close" && response.status < 429) controller.abort();
    },
  });
  controller.onAbort(({ type, reason }) => report({ end: true, ...(type === "error" ? { error: reason } : {}) }));
};
