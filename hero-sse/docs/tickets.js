// An event stream by tickets. The token stays in a header; what stands in a URL opens once, for half a minute.

/**
 * Keeps the stream at `path` open. `tickets` is the route where tickets are made; `token()` resolves to a valid access token;
 * `events` maps names of events to what to do with their data; `refused(status)` hears of an answer that will not change.
 * Returns what closes it for good.
 */
export function ticketStream(path, { tickets, token, events, refused = () => {}, cursor = "" }) {
  let source, timer, failures = 0, over = false;

  function close() {
    over = true;
    clearTimeout(timer);
    source?.close();
  }

  // The URL is spent: the browser must not try it again. Later each time, and never in step with other pages.
  function again(wait = 0) {
    source?.close();
    clearTimeout(timer);
    const pause = Math.min(30_000, 250 * 2 ** failures++) * (1 + Math.random() / 2);
    if (!over) timer = setTimeout(open, Math.max(wait, pause));
  }

  async function open() {
    try {
      const headers = { authorization: `Bearer ${await token()}`, "content-type": "application/json" };
      const answer = await fetch(tickets, { method: "POST", headers, body: JSON.stringify({ path }), signal: AbortSignal.timeout(10_000) });
      if ([400, 403, 404].includes(answer.status)) return refused(answer.status);
      if (!answer.ok) throw new Error(`no ticket: ${answer.status}`);
      const { ticket } = await answer.json();
      if (!over) listen(ticket);
    } catch {
      again();
    }
  }

  function listen(ticket) {
    const query = new URLSearchParams({ ticket, ...(cursor && { last_event_id: cursor }) });
    source = new EventSource(`${path}?${query}`);
    source.onopen = () => (failures = 0);
    source.onerror = () => again();
    for (const [name, handle] of Object.entries(events)) {
      source.addEventListener(name, (event) => {
        cursor = event.lastEventId || cursor;
        handle(event.data, event.lastEventId);
      });
    }
    source.addEventListener("hero.close", (event) => {
      const { reason, retry_ms } = JSON.parse(event.data);
      if (reason === "last_event") close();
      else again(reason === "token_expired" ? 0 : retry_ms);
    });
  }

  open();
  return close;
}
