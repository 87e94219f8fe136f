import { fetchEventSource } from "@microsoft/fetch-event-source";

export default async ({ url, method, body, headers, setting }, report) => {
  class Final extends Error {}
  let last = false;
  const settings = {
    defaults: {},
    // Comes back after every end but that of the last event, and gives up after a status that is final.
    close: {
      onopen: async (response) => {
        report({ open: true });
        if (response.status === 204) throw new Final("204");
        if (response.status >= 400 && ![429, 503].includes(response.status)) throw Object.assign(new Final(`status ${response.status}`), { status: response.status });
      },
      onclose: () => {
        if (!last) throw new Error("the stream ended");
      },
      onerror: (error) => {
        if (error instanceof Final) throw error;
        report({ cut: true });
      },
    },
    // For an answer: a cut is an error, not a reason to ask again.
    once: {
      onopen: async ({ ok, status }) => {
        if (!ok) throw Object.assign(new Error(`status ${status}`), { status });
      },
      onerror: (error) => {
        throw error;
      },
    },
  };
  await fetchEventSource(url, {
    method,
    body,
    headers,
    openWhenHidden: true,
    onmessage: ({ event, id, data }) => {
      report({ event: event || "message", id, data });
      if (event === "hero.close") last = !JSON.parse(data).reconnect;
    },
    onerror: (error) => {
      report({ cut: true, message: String(error) });
    },
    ...settings[setting ?? "defaults"],
  });
  report({ end: true });
};
