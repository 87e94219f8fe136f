// An EventSource for production: copy this file into your own page. It needs no other module.
//
// The built-in EventSource reconnects and resumes by itself. It lacks four things, which this class adds:
//   1. the reason why a stream ended (`hero.close`, or the status of a refusal, which EventSource hides);
//   2. a watchdog: a browser does not notice a connection that silently died;
//   3. the last event id across objects: a new EventSource does not send `Last-Event-ID`;
//   4. another attempt after a status such as 503, after which a browser gives up for good.

const DEFAULT_HEARTBEAT_MS = 15_000; // until `hero.heartbeat` says the stream's own interval
const SILENT_HEARTBEATS = 2.5; // heartbeat intervals of silence after which an open stream counts as dead
const ANSWER_TIMEOUT_MS = 20_000; // how long an attempt to connect may take
const MAX_DELAY_MS = 30_000; // between attempts that this page makes itself

/** The reasons in `hero.close`, in words. A reason that is missing here is shown as the server sent it. */
const CLOSE_REASONS = {
  draining: "The server is shutting down.",
  over_limit: "The server has no free slot for this stream.",
  max_age: "The stream reached its maximum age.",
  token_expired: "The token expired.",
  revoked: "The server withdrew the permission.",
  unverified: "The server cannot check the permission right now.",
  overflow: "This page read too slowly.",
  write_timeout: "This page read too slowly.",
  stream_error: "The stream failed on the server.",
  stream_panic: "The stream failed on the server.",
  ended: "The server ended the stream.",
  last_event: "The stream sent its last event.",
};

/**
 * One event stream.
 *
 * | state        | meaning                                                        |
 * |--------------|----------------------------------------------------------------|
 * | idle         | closed by the page                                             |
 * | connecting   | waiting for the server's answer                                |
 * | live         | open                                                           |
 * | reconnecting | lost; the browser or this class tries again                    |
 * | silent       | open without a sign of life; the watchdog opens another one    |
 * | unauthorized | 401, or the token expired: a new token is needed               |
 * | refused      | another status that a retry does not change, such as 403       |
 * | ended        | over: the last event arrived, or the server said not to return |
 */
export class LiveStream {
  state = "idle";
  label = "idle"; // the state in a word or two
  sentence = ""; // the state in a sentence
  retryAt = 0; // time of the next attempt to connect, or 0 if unknown
  lastEventId = "";
  lastClose = ""; // reason of the last `hero.close`
  complete = false; // whether the stream sent its last event
  counts = zeroCounts();
  token = ""; // the token that opened the stream

  #source = null;
  #lastSign = 0; // time of the last byte that this class knows of, or of the last attempt to connect
  #heartbeatMs = DEFAULT_HEARTBEAT_MS;
  #wasOpen = false; // whether the current EventSource was open before
  #lastEventSeen = false;
  #retryMs = 0; // the browser's reconnection time, as far as this class can know it
  #failedAt = 0;
  #failures = 0; // failed attempts of this class in a row
  #ownRetry = false; // whether this class makes the next attempt, because the browser does not
  #closeSentence = ""; // from `hero.close`, until the stream is open again

  /**
   * - `path`: the endpoint; `permission`: the one it requires.
   * - `events`: maps an event's name to the function that takes its data.
   * - `onGap(missed)`: events are missing; `missed` is their number, or null if the server does not know it.
   * - `lastEvent`: name of the event after which the stream is complete; `afterLast`: a sentence for that state.
   * - `onChange(what)`: "state", "event", "heartbeat", "closed" (by the server), "lost" (the connection) or "id".
   * - `onUnauthorized(stream, detail)`: a new token is needed. `detail` is the server's text for a 401, and undefined
   *   when an open stream reached the end of its token.
   */
  constructor({ path, permission, events, onGap, lastEvent, afterLast = "" }, { onChange, onUnauthorized }) {
    Object.assign(this, { path, permission, events, onGap, lastEvent, afterLast, onChange, onUnauthorized });
  }

  /** Opens the stream, after the last event received. `fresh` starts without a position instead. */
  open(token, { fresh = false } = {}) {
    if (fresh) this.lastEventId = "";
    this.#failures = 0;
    this.#connect(token, "connecting", "connecting", "Waiting for the server's answer.");
  }

  /** Closes the stream. Only `open` opens it again. */
  close(state, label, sentence) {
    this.#drop();
    this.#become(state, label, sentence);
  }

  /** Resets the counters and the position. */
  reset() {
    Object.assign(this, { lastEventId: "", lastClose: "", complete: false, counts: zeroCounts() });
  }

  /** Runs the watchdog and due attempts. Call it a few times a second. */
  tick(now) {
    if (this.#ownRetry) {
      if (now >= this.retryAt) this.#connect(this.token, "connecting", "connecting", "Trying again.");
    } else if (this.#source) {
      const silence = now - this.#lastSign;
      if (this.state === "live" && silence > this.#silenceLimit) {
        this.#reopen(`Nothing arrived for ${wholeSeconds(silence)}. The page's watchdog opens a new connection.`);
      } else if (this.state !== "live" && silence > ANSWER_TIMEOUT_MS) {
        this.#reopen(`No answer for ${wholeSeconds(silence)}. Other tabs may hold all six connections.`);
      }
    }
  }

  /** Restarts the watchdog's clock. After sleep, events may still wait in the browser: silence proves nothing. */
  excuse(now) {
    this.#lastSign = Math.max(this.#lastSign, now);
  }

  get #silenceLimit() {
    return SILENT_HEARTBEATS * this.#heartbeatMs;
  }

  #connect(token, state, label, sentence) {
    this.#drop();
    this.token = token;
    this.complete = this.#wasOpen = this.#lastEventSeen = false;
    this.#lastSign = performance.now();

    // An EventSource cannot send headers, and a new one has no last event id: both go into the URL.
    const url = new URL(this.path, location.origin);
    url.searchParams.set("access_token", token);
    if (this.lastEventId) url.searchParams.set("last_event_id", this.lastEventId);
    const source = (this.#source = new EventSource(url));
    source.onopen = () => this.#opened(source);
    source.onerror = () => this.#failed(source);

    const listen = (name, handle) =>
      source.addEventListener(name, (event) => {
        if (source !== this.#source) return;
        this.#lastSign = performance.now();
        if (event.lastEventId) this.lastEventId = event.lastEventId;
        handle(event.data === "" ? {} : JSON.parse(event.data));
      });
    for (const [name, handle] of Object.entries(this.events)) {
      listen(name, (data) => {
        this.counts.events += 1;
        if (name === this.lastEvent) this.#lastEventSeen = true;
        handle(data);
        this.onChange("event");
      });
    }
    listen("hero.heartbeat", ({ interval_ms }) => {
      this.counts.heartbeats += 1;
      if (interval_ms > 0 && interval_ms !== this.#heartbeatMs) {
        this.#heartbeatMs = interval_ms;
        this.#live();
      }
      this.onChange("heartbeat");
    });
    listen("hero.cursor", () => this.onChange("id")); // a position to resume from, before the first event
    listen("hero.gap", ({ missed }) => {
      this.onGap?.(missed);
      this.onChange("id");
    });
    listen("hero.close", (data) => this.#closed(data));
    this.#become(state, label, sentence);
  }

  #drop() {
    this.#source?.close();
    this.#source = null;
    this.#ownRetry = false;
    this.retryAt = 0;
  }

  #reopen(sentence) {
    if (this.#lastEventSeen) return this.#finish();
    this.counts.reopened += 1;
    this.#lost();
    this.#connect(this.token, "silent", "silent", sentence);
  }

  #become(state, label, sentence) {
    Object.assign(this, { state, label, sentence });
    this.onChange("state");
  }

  #live() {
    this.#become("live", "live", `Connected. Reconnects after ${this.#silenceLimit / 1000} s of silence.`);
  }

  #finish() {
    this.complete = true;
    this.close("ended", "complete", `${CLOSE_REASONS.last_event} ${this.afterLast}`);
  }

  #lost() {
    this.counts.lost += 1;
    this.onChange("lost");
  }

  #opened(source) {
    if (source !== this.#source) return;
    if (this.#wasOpen) this.counts.reconnects += 1;
    this.#wasOpen = true;
    this.#failures = this.#failedAt = this.retryAt = 0;
    this.#closeSentence = "";
    this.#lastSign = performance.now();
    this.#live();
  }

  /** Handles `hero.close`: the server is about to end the stream, and says why and whether to reconnect. */
  #closed({ reason = "ended", reconnect = true, retry_ms }) {
    this.lastClose = reason;
    this.counts.closed += 1;
    if (retry_ms > 0) this.#retryMs = retry_ms;
    this.onChange("closed");
    const sentence = CLOSE_REASONS[reason] ?? `The server ended the stream: ${reason}.`;
    if (reason === "token_expired") {
      this.#drop();
      this.onUnauthorized(this);
    } else if (this.#lastEventSeen) {
      this.#finish();
    } else if (!reconnect) {
      this.close("ended", "ended", `${sentence} It said not to reconnect.`);
    } else {
      this.#closeSentence = sentence; // the end of the stream follows, and then the browser reconnects
    }
  }

  #failed(source) {
    if (source !== this.#source) return;
    if (this.#lastEventSeen) return this.#finish();
    if (source.readyState === EventSource.CLOSED) {
      this.#askWhy(source);
      return;
    }
    // The browser reconnects by itself. It does not say when: `hero.close` does, or the time between two failures.
    const now = performance.now();
    if (this.#failedAt) this.#retryMs = now - this.#failedAt;
    this.#failedAt = now;
    this.retryAt = this.#retryMs ? now + this.#retryMs : 0;
    this.#lastSign = now + this.#retryMs;
    const announced = this.#closeSentence; // by `hero.close`: this end is no loss, but the next failure is
    this.#closeSentence = "";
    if (!announced) this.#lost();
    const sentence = announced || (this.state === "live" ? "The connection broke." : "The server cannot be reached.");
    this.#become("reconnecting", "reconnecting", `${sentence} The browser keeps trying.`);
  }

  /**
   * Finds out why the browser gave up. An EventSource hides the status. A HEAD request of the same URL shows it, and
   * never opens a stream.
   */
  async #askWhy(source) {
    const url = new URL(this.path, location.origin);
    if (this.lastEventId) url.searchParams.set("last_event_id", this.lastEventId);
    let answer = null;
    try {
      const headers = { authorization: `Bearer ${this.token}` };
      answer = await fetch(url, { method: "HEAD", headers, cache: "no-store", signal: AbortSignal.timeout(10_000) });
    } catch {
      // No answer at all: handled below.
    }
    if (source !== this.#source) return; // closed or opened again meanwhile
    const status = answer?.status ?? 0;
    const challenge = answer?.headers.get("www-authenticate") ?? "";
    if (status === 204) return this.#finish();
    if (status === 401) {
      this.#drop();
      return this.onUnauthorized(this, challengeValue(challenge, "error_description") || "unauthorized");
    }
    if (status === 403) {
      const missing = challengeValue(challenge, "scope") || this.permission;
      return this.close("refused", "refused 403", `The token lacks the permission ${missing}.`);
    }
    if (status >= 400 && status < 500 && status !== 408 && status !== 429) {
      return this.close("refused", `refused ${status}`, `The server answers ${status} at this address.`);
    }
    // Busy, starting, or healthy again. Wait longer each time, with jitter: clients must not return in step.
    this.#drop();
    this.#ownRetry = true;
    const delay = Math.min(MAX_DELAY_MS, 1000 * 2 ** this.#failures++) * (1 + Math.random() / 2);
    this.retryAt = performance.now() + delay;
    const sentence = { 0: "The server cannot be reached.", 200: "The browser gave up the stream." }[status] ?? `The server answers ${status}.`;
    this.#become("reconnecting", "reconnecting", `${sentence} This page tries again.`);
  }
}

const zeroCounts = () => ({ events: 0, heartbeats: 0, closed: 0, lost: 0, reconnects: 0, reopened: 0 });

const wholeSeconds = (ms) => `${Math.round(ms / 1000)} s`;

/** One value of a Bearer challenge, such as `scope="usage.read"`. */
const challengeValue = (challenge, name) => new RegExp(`\\b${name}="([^"]*)"`).exec(challenge)?.[1] ?? "";
