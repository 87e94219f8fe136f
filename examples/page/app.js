// The page of the live example. `LiveStream` is the part worth taking away: an EventSource that can say what happened to it.
// Below it stand the session (who is signed in, until when), the three cards, and the one ticker that drives them all.
//
// Nothing a server sends is ever parsed as markup: text goes in as text nodes, numbers as attributes and path data.

const $ = (selector, root = document) => root.querySelector(selector);

/** Makes an element; strings among the children become text nodes. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A message for people, from anything that was thrown. */
function words(error) {
  if (error.name === "TimeoutError") return "no answer; other tabs may hold all six connections to this server";
  return error instanceof TypeError ? "the server cannot be reached" : error.message; // a TypeError is all that fetch tells
}

/** A JSON request. Throws an Error with `status` and the problem's own words when the answer is not a success. */
async function call(path, body, token) {
  const headers = { "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal: AbortSignal.timeout(10_000) });
  const told = await answer.json().catch(() => ({}));
  if (answer.ok) return told;
  const failure = new Error(told.detail || told.title || `the server answered ${answer.status}`);
  failure.status = answer.status;
  throw failure;
}

// ---------------------------------------------------------------------------------------------------------------------
// One stream

const DEFAULT_HEARTBEAT_MS = 15_000; // until the stream's own hero.heartbeat names its interval
const PATIENCE = 2.5; // heartbeat intervals of silence before an open stream counts as dead
const ANSWER_MS = 20_000; // how long an attempt to connect may take
const LONGEST_DELAY_MS = 30_000; // between attempts that this page makes itself

/** Why a server ended a stream, in words. A reason that is not listed is shown as it came. */
const CLOSE_REASONS = {
  draining: "The server is shutting down.",
  over_limit: "The server has no room for another stream now.",
  max_age: "The stream reached its greatest age.",
  token_expired: "The token has expired.",
  revoked: "The permission was withdrawn.",
  overflow: "This page read too slowly.",
  write_timeout: "This page read too slowly.",
  stream_error: "The stream broke off on the server.",
  stream_panic: "The stream broke off on the server.",
  ended: "The server ended the stream.",
  last_event: "That was the last event.",
};

/**
 * An EventSource with what the built-in one lacks: the reason of an end, a watchdog, and a new start after a final
 * error. States: idle, connecting, live, reconnecting, stale (silent, being reopened), refused, expired, ended.
 */
class LiveStream {
  state = "idle";
  label = "signed out"; // the state in a word or two
  words = "Sign in to open this stream."; // the state in a sentence
  dueAt = 0; // when the next attempt to connect is expected, or 0
  cursor = ""; // id of the last event received
  lastClose = "";
  counts = { events: 0, heartbeats: 0, reconnects: 0, reopened: 0 };
  token = null; // the token the stream was opened with

  #source = null;
  #heard = 0; // when the server last gave a sign of life, or an attempt began
  #heartbeatMs = DEFAULT_HEARTBEAT_MS;
  #wasOpen = false; // since the last `open()`
  #lastEventSeen = false;
  #retryMs = 0; // the browser's reconnection time, as far as the page has learnt it
  #errorAt = 0;
  #failures = 0; // attempts of this page in a row that came to nothing
  #ownRetry = false; // whether this page, not the browser, makes the next attempt
  #goodbye = ""; // what the farewell said, until the stream is open again

  /**
   * `events` maps a name to what to do with its data, `gap` hears how many are missing, or null; `lastEvent` names the event after
   * which nothing comes, `afterLast` says what then. `changed(what)` hears of "state", "event", "heartbeat", "cursor" and "close";
   * `expired(stream)` decides what an expired token leads to.
   */
  constructor({ path, permission, events, gap, lastEvent, afterLast }, { changed, expired }) {
    Object.assign(this, { path, permission, events, gap, lastEvent, afterLast, changed, expired });
  }

  /** Forgets what it counted and where it stood. */
  forget() {
    Object.assign(this, { cursor: "", lastClose: "", counts: { events: 0, heartbeats: 0, reconnects: 0, reopened: 0 } });
  }

  /** Opens the stream. `fresh` forgets where it stood; otherwise it goes on behind the last event received. */
  open(token, { fresh = false } = {}) {
    if (fresh) this.cursor = "";
    this.#failures = 0;
    this.#connect(token, "connecting", "connecting", "Waiting for the server's answer.");
  }

  /** Closes the stream and stays closed. */
  rest(state, label, sentence) {
    this.#drop();
    this.#become(state, label, sentence);
  }

  /** How much silence an open stream may keep. */
  get patience() {
    return PATIENCE * this.#heartbeatMs;
  }

  get wasOpen() {
    return this.#wasOpen;
  }

  /** Called a few times a second: the watchdog, and the attempts that the browser does not make. */
  tick(now) {
    if (this.#ownRetry) {
      if (now >= this.dueAt) this.#connect(this.token, "connecting", "connecting", "Trying again.");
    } else if (this.#source) {
      const silence = now - this.#heard;
      if (this.state === "live" && silence > this.patience) {
        this.#reopen(`No event and no heartbeat for ${seconds(silence)}: the watchdog opens a new connection.`);
      } else if (this.state !== "live" && silence > ANSWER_MS) {
        this.#reopen(`No answer for ${seconds(silence)}: trying a new connection. Other tabs may hold all six.`);
      }
    }
  }

  /** The page was asleep: what arrived meanwhile is still waiting to be handed over, so silence proves nothing. */
  forgive(now) {
    this.#heard = Math.max(this.#heard, now);
  }

  #reopen(sentence) {
    if (this.#lastEventSeen) return this.#complete();
    this.counts.reopened += 1;
    this.changed("close");
    this.#connect(this.token, "stale", "silent, reopening", sentence);
  }

  #connect(token, state, label, sentence) {
    this.#drop();
    this.token = token;
    this.#wasOpen = false;
    this.#lastEventSeen = false;
    this.#heard = performance.now();

    // An EventSource cannot send headers, and a new one does not know where the old one stood: both go into the URL.
    const url = new URL(this.path, location.origin);
    url.searchParams.set("access_token", token);
    if (this.cursor) url.searchParams.set("last_event_id", this.cursor);
    const source = (this.#source = new EventSource(url));
    source.onopen = () => this.#opened(source);
    source.onerror = () => this.#failed(source);

    const listen = (name, handle) =>
      source.addEventListener(name, (event) => {
        if (source !== this.#source) return;
        this.#heard = performance.now();
        if (event.lastEventId) this.cursor = event.lastEventId;
        handle(event.data === "" ? {} : JSON.parse(event.data));
      });
    for (const [name, handle] of Object.entries(this.events)) {
      listen(name, (data) => {
        this.counts.events += 1;
        if (name === this.lastEvent) this.#lastEventSeen = true;
        handle(data);
        this.changed("event");
      });
    }
    listen("hero.heartbeat", ({ interval_ms }) => {
      this.counts.heartbeats += 1;
      if (interval_ms > 0 && interval_ms !== this.#heartbeatMs) {
        this.#heartbeatMs = interval_ms;
        this.#live();
      }
      this.changed("heartbeat");
    });
    listen("hero.cursor", () => this.changed("cursor")); // no event yet, but a place to come back to
    listen("hero.gap", ({ missed }) => {
      this.gap?.(missed);
      this.changed("cursor");
    });
    listen("hero.close", (farewell) => this.#farewell(farewell));
    this.#become(state, label, sentence);
  }

  #drop() {
    this.#source?.close();
    this.#source = null;
    this.#ownRetry = false;
    this.dueAt = 0;
  }

  #become(state, label, sentence) {
    Object.assign(this, { state, label, words: sentence });
    this.changed("state");
  }

  #complete() {
    this.rest("ended", "complete", `${CLOSE_REASONS.last_event} ${this.afterLast}`);
  }

  #opened(source) {
    if (source !== this.#source) return;
    if (this.#wasOpen) this.counts.reconnects += 1;
    this.#wasOpen = true;
    this.#failures = 0;
    this.#errorAt = 0;
    this.#goodbye = "";
    this.#heard = performance.now();
    this.dueAt = 0;
    this.#live();
  }

  #live() {
    this.#become("live", "live", `Open. Counts as dead after ${this.patience / 1000} s of silence.`);
  }

  /** The server says why it is about to end the stream, and whether to come back. */
  #farewell({ reason = "ended", reconnect = true, retry_ms }) {
    this.lastClose = reason;
    if (retry_ms > 0) this.#retryMs = retry_ms;
    this.changed("close");
    const sentence = CLOSE_REASONS[reason] ?? `The server ended the stream: ${reason}.`;
    if (reason === "token_expired") {
      this.#drop();
      this.expired(this);
    } else if (this.#lastEventSeen) {
      this.#complete();
    } else if (!reconnect) {
      this.rest("ended", "ended", `${sentence} It asks not to come back by itself.`);
    } else {
      this.#goodbye = sentence; // the end itself follows, and then the browser reconnects
    }
  }

  #failed(source) {
    if (source !== this.#source) return;
    if (this.#lastEventSeen) return this.#complete();
    if (source.readyState === EventSource.CLOSED) {
      this.#ask(source);
      return;
    }
    // The browser comes back by itself. It does not say when: a farewell does, or the time between two failures.
    const now = performance.now();
    if (this.#errorAt) this.#retryMs = now - this.#errorAt;
    this.#errorAt = now;
    this.dueAt = this.#retryMs ? now + this.#retryMs : 0;
    this.#heard = now + this.#retryMs;
    const sentence = this.#goodbye || (this.state === "live" ? "The connection broke." : "The server cannot be reached.");
    this.changed("close");
    this.#become("reconnecting", "reconnecting", `${sentence} The browser keeps trying by itself.`);
  }

  /**
   * The browser has given up for good, and an EventSource does not tell why. The same address, asked with HEAD, does;
   * it never starts a stream.
   */
  async #ask(source) {
    const url = new URL(this.path, location.origin);
    if (this.cursor) url.searchParams.set("last_event_id", this.cursor);
    let answer = null;
    try {
      const headers = { authorization: `Bearer ${this.token}` };
      answer = await fetch(url, { method: "HEAD", headers, cache: "no-store", signal: AbortSignal.timeout(10_000) });
    } catch {
      // no answer at all: below
    }
    if (source !== this.#source) return; // closed, or opened anew, while asking
    const status = answer?.status ?? 0;
    const challenge = answer?.headers.get("www-authenticate") ?? "";
    if (status === 204) return this.#complete();
    if (status === 401) return this.expired(this, challengeWord(challenge, "error_description"));
    if (status === 403) {
      const missing = challengeWord(challenge, "scope") || this.permission;
      return this.rest("refused", "refused 403", `Signed in, but lacks ${missing}. Tick it above and sign in again.`);
    }
    if (status >= 400 && status < 500 && status !== 408 && status !== 429) {
      return this.rest("refused", `refused ${status}`, `The server answers ${status} at this address.`);
    }
    // Busy, starting up, or well again by now: the browser will not try, so this page does, later each time and never in step.
    this.#drop();
    this.#ownRetry = true;
    const delay = Math.min(LONGEST_DELAY_MS, 1000 * 2 ** this.#failures++) * (1 + Math.random() / 2);
    this.dueAt = performance.now() + delay;
    const said = status === 0 ? "The server cannot be reached." : status === 200 ? "The browser gave the stream up." : `The server answers ${status}.`;
    this.#become("reconnecting", "reconnecting", `${said} This page tries again by itself.`);
  }
}

/** One word of a Bearer challenge, such as `scope="usage.read"`. */
const challengeWord = (challenge, name) => new RegExp(`\\b${name}="([^"]*)"`).exec(challenge)?.[1] ?? "";

const seconds = (ms) => `${Math.max(0, Math.round(ms / 1000))} s`;
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// ---------------------------------------------------------------------------------------------------------------------
// The session

let session = null; // { token, request, from, until }, times on this page's own clock
let renewing = null;

async function mint(request) {
  const { token } = await call("/token", request);
  const from = performance.now();
  return { token, request, from, until: from + parseFloat(request.ttl) * 1000 };
}

/** A new token for the same subject and permissions. Streams that ask together share one. */
function renew() {
  renewing ??= renewOnce().finally(() => (renewing = null));
  return renewing;
}

async function renewOnce() {
  const asked = session;
  const age = performance.now() - asked.from;
  if (age < 1000) await new Promise((done) => setTimeout(done, 1000 - age)); // however short a token lives, at most one a second
  const renewed = await mint(asked.request);
  if (session !== asked) return; // signed out, or in as somebody else, meanwhile
  session = renewed;
  say(`Signed in as ${asked.request.subject}, with a renewed token.`);
  showSession();
  for (const stream of streams) if (stream.state === "expired") stream.open(session.token);
}

/** A stream's token is not taken any more. */
async function expired(stream, told = "") {
  if (!session) return;
  const over = performance.now() >= session.until || stream.lastClose === "token_expired" && stream.wasOpen;
  if (session.token !== stream.token) {
    stream.open(session.token); // renewed already, for another stream
  } else if ($("#auto-renew").checked && (over || stream.wasOpen)) {
    stream.rest("expired", "token expired", "The token has expired. Fetching a new one.");
    await renew().catch((error) => {
      if (stream.state === "expired") stream.rest("expired", "token expired", `The token has expired, and no new one came: ${words(error)}.`);
    });
  } else if (over) {
    stream.rest("expired", "token expired", "The token has expired. Renew it to go on where the stream stood.");
  } else {
    stream.rest("expired", "refused 401", `The server does not take this token${told ? `: ${told}` : ""}. Renew it to go on.`);
  }
}

const form = $("#session");
const say = (sentence) => ($("#session-words").textContent = sentence);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const request = {
    subject: $("#subject").value.trim(),
    permissions: [...form.querySelectorAll("[name=permission]:checked")].map((box) => box.value),
    ttl: `${$("#ttl").valueAsNumber}s`,
  };
  $("#sign-in").disabled = true;
  try {
    session = await mint(request);
    say(`Signed in as ${request.subject}, with ${request.permissions.join(", ") || "no permission at all"}.`);
    for (const card of cards) card.clear();
    for (const stream of streams) stream.open(session.token, { fresh: true });
  } catch (error) {
    say(`No token: ${words(error)}.`);
  }
  $("#sign-in").disabled = false;
  showSession();
});

$("#sign-out").addEventListener("click", () => {
  session = null;
  for (const stream of streams) stream.rest("idle", "signed out", "Sign in to open this stream.");
  say("Signed out. The three streams are closed.");
  showSession();
  $("#sign-in").focus();
});

const renewNow = () => renew().catch((error) => say(`The token was not renewed: ${words(error)}.`));
$("#renew").addEventListener("click", renewNow);
$("#auto-renew").addEventListener("change", ({ target }) => {
  if (target.checked && streams.some(({ state }) => state === "expired")) renewNow();
});

/** What changes only when a session begins or ends. */
function showSession() {
  form.dataset.session = session ? "in" : "out";
  $("#sign-in").textContent = session ? "Sign in again" : "Sign in";
  $("#sign-out").disabled = $("#renew").disabled = !session;
  for (const card of cards) card.showCurl();
  showToken(performance.now());
}

/** What changes as time goes by. */
function showToken(now) {
  const left = session ? session.until - now : 0;
  const share = session ? Math.max(0, left / (session.until - session.from)) : 0;
  form.dataset.token = !session ? "none" : left <= 0 ? "over" : share < 0.2 ? "low" : "good";
  $("#token-bar").style.transform = `scaleX(${share.toFixed(4)})`;
  const leeway = left <= 0 && streams.some(({ state }) => state === "live"); // what the server grants beyond the end
  const text = !session ? "" : left > 0 ? `${Math.ceil(left / 1000)} s left` : leeway ? "in the leeway" : "expired";
  if ($("#token-left").textContent !== text) $("#token-left").textContent = text;
}

// ---------------------------------------------------------------------------------------------------------------------
// A card: one stream's connection, shown

const WIRE_MS = 60_000;

class Card {
  constructor(name, view) {
    this.view = view;
    this.root = $(`#${name}`);
    const top = $("#connection-top").content.cloneNode(true);
    this.part = {};
    const counters = $("#connection-counters").content.cloneNode(true);
    for (const piece of [top, counters]) for (const node of piece.querySelectorAll("[data-of]")) this.part[node.dataset.of] = node;
    $(".card-head", this.root).append($(".pill", top));
    $(".card-head", this.root).after(top);
    this.root.append(counters);
    this.part.action.addEventListener("click", () => this.act());

    this.stream = new LiveStream(view.stream, { changed: (what) => this.changed(what), expired });
    this.curl = this.makeCurl();
    this.clear();
  }

  clear() {
    this.marks = { event: [], heartbeat: [], close: [] }; // times, newest last
    this.spans = []; // [from, to] while live; `to` is null for the one that lasts
    this.stream.forget();
    this.view.clear();
    this.show();
  }

  changed(what) {
    const now = performance.now();
    if (what === "state") {
      const lasting = this.spans.findLast(([, to]) => to === null);
      if (this.stream.state !== "live") {
        if (lasting) lasting[1] = now;
      } else if (!lasting) {
        this.spans.push([now, null]);
      }
    } else {
      this.marks[what]?.push(now);
    }
    this.forgetBefore(now - WIRE_MS); // here, since a hidden tab draws nothing
    this.show();
  }

  /** The button beside the words: what one can do about this state. */
  get action() {
    const { state, label } = this.stream;
    if (state === "expired") return "Renew";
    return state === "ended" && label === "ended" ? "Open again" : "";
  }

  act() {
    if (this.action === "Renew") renewNow();
    else if (session) this.stream.open(session.token);
  }

  show() {
    const { stream, part, root } = this;
    const { events, heartbeats, reconnects, reopened } = stream.counts;
    // These attributes are also what the browser test reads.
    Object.assign(root.dataset, { state: stream.state, events, heartbeats, reconnects, reopened, lastId: stream.cursor, lastClose: stream.lastClose });
    if (part.words.textContent !== stream.words) part.words.textContent = stream.words; // a live region: written once a change
    part.action.textContent = this.action;
    part.action.hidden = !this.action;
    const texts = { events, heartbeats, reconnects, reopened, "last-id": stream.cursor || "none", "last-close": stream.lastClose || "none" };
    for (const [name, value] of Object.entries(texts)) part[name].textContent = value;
    part["last-id"].title = stream.cursor;
    this.showPill(performance.now());
  }

  showPill(now) {
    const left = this.stream.dueAt - now;
    const text = this.stream.label + (left > 0 ? ` in ${Math.ceil(left / 1000)} s` : "");
    if (this.part.pill.textContent !== text) this.part.pill.textContent = text;
  }

  forgetBefore(since) {
    for (const times of Object.values(this.marks)) while (times.length && times[0] < since) times.shift();
    this.spans = this.spans.filter(([, to]) => to === null || to > since);
  }

  /** The wire: what came over this connection in the last minute, the newest at the right. */
  drawWire(now) {
    const since = now - WIRE_MS;
    const x = (time) => (Math.max(0, time - since) / WIRE_MS * 600).toFixed(1);
    this.forgetBefore(since);
    const ticks = { event: [1, 9], heartbeat: [3.5, 6.5], close: [0, 10] };
    for (const [kind, [top, bottom]] of Object.entries(ticks)) {
      this.part[`wire-${kind}`].setAttribute("d", this.marks[kind].map((time) => `M${x(time)} ${top}V${bottom}`).join(""));
    }
    this.part["wire-open"].setAttribute("d", this.spans.map(([from, to]) => `M${x(from)} 5H${x(to ?? now)}`).join(""));
  }

  makeCurl() {
    const line = el("code", { tabindex: "0", "aria-label": `curl line for ${this.stream.path}` });
    const copy = el("button", { type: "button", "aria-label": `Copy the curl line for ${this.stream.path}` }, "Copy");
    copy.addEventListener("click", async () => {
      copy.textContent = (await copied(this.curlLine(session.token))) ? "Copied" : "No access";
      setTimeout(() => (copy.textContent = "Copy"), 1500);
    });
    $("#curl-lines").append(el("li", {}, line, copy));
    return { line, copy };
  }

  curlLine(token) {
    const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
    return `curl -N ${quoted(location.origin + this.stream.path)} -H ${quoted(`Authorization: Bearer ${token}`)}`;
  }

  showCurl() {
    const short = session ? `${session.token.slice(0, 10)}…` : "TOKEN";
    this.curl.line.textContent = this.curlLine(short);
    this.curl.copy.disabled = !session;
  }
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without https only localhost has the clipboard; the old way needs a selection.
    const box = el("textarea", { readonly: "" });
    box.value = text;
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    return done;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Usage: the gauge

const CHART_MS = 120_000;
const GAP_MS = 2_500; // readings further apart than this are not joined by a line
const gib = (bytes) => (bytes / 2 ** 30).toFixed(bytes < 10 * 2 ** 30 ? 2 : 1);

const usage = {
  readings: [], // { at, cpu, memory }: server's time, per cent
  drawnAt: 0,

  clear() {
    this.readings = [];
    this.ahead = 0; // the server's clock against this one's
    $("#cpu-now").textContent = $("#memory-now").textContent = "–";
    $("#memory-of").textContent = "";
    $("#cores").replaceChildren();
    $("#cores-label").textContent = "Cores";
    this.draw();
  },

  take({ at, cpu, cpu_total, memory_used, memory_total }) {
    const time = Date.parse(at);
    this.ahead = time - Date.now();
    this.readings.push({ at: time, cpu: cpu_total, memory: memory_total > 0 ? (100 * memory_used) / memory_total : 0 });
    while (this.readings[0].at < time - CHART_MS - GAP_MS) this.readings.shift();
    $("#cpu-now").textContent = `${cpu_total.toFixed(1)} %`;
    $("#memory-now").textContent = `${gib(memory_used)} GiB`;
    $("#memory-of").textContent = ` of ${gib(memory_total)}`;
    const cores = $("#cores");
    if (cores.children.length !== cpu.length) {
      cores.replaceChildren(...cpu.map(() => el("i")));
      $("#cores-label").textContent = cpu.length === 1 ? "1 core" : `${cpu.length} cores`;
    }
    cpu.forEach((use, core) => cores.children[core].style.setProperty("--use", Math.min(100, use)));
    this.draw();
  },

  draw() {
    this.drawnAt = performance.now();
    const end = Math.max(Date.now() + this.ahead, this.readings.at(-1)?.at ?? 0);
    const x = ({ at }) => (120 - (end - at) / 1000).toFixed(2);
    const y = (percent) => (100 - Math.max(0, Math.min(100, percent))).toFixed(2);
    let cpu = "", memory = "", area = "", before = null;
    const closeArea = () => { if (before) area += `V100Z`; };
    for (const reading of this.readings) {
      const joined = before && reading.at - before.at <= GAP_MS;
      if (!joined) closeArea();
      cpu += `${joined ? "L" : "M"}${x(reading)} ${y(reading.cpu)}`;
      memory += `${joined ? "L" : "M"}${x(reading)} ${y(reading.memory)}`;
      area += `${joined ? "L" : `M${x(reading)} 100L`}${x(reading)} ${y(reading.cpu)}`;
      before = reading;
    }
    closeArea();
    for (const [id, path] of [["cpu-line", cpu], ["memory-line", memory], ["cpu-area", area]]) $(`#${id}`).setAttribute("d", path);
    $("#chart-empty").hidden = this.readings.length > 0;
  },
};
usage.stream = { path: "/api/v1/usage/stream", permission: "usage.read", events: { usage: (data) => usage.take(data) } };

// ---------------------------------------------------------------------------------------------------------------------
// Audit: the log

const LOG_ROWS = 200;
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

const audit = {
  rows: $("#audit-rows"),
  lost: null, // the note on a gap, until a line follows that is not here yet

  clear() {
    this.rows.replaceChildren(el("tr", { class: "empty" }, el("td", { colspan: "4" }, "No lines yet")));
    this.lost = null;
  },

  add(row) {
    $(".empty", this.rows)?.remove();
    this.rows.prepend(row);
    while (this.rows.children.length > LOG_ROWS) this.rows.lastElementChild.remove();
  },

  /** Adds the row of a line, unless the line is told again after a gap: then nothing is missing. */
  addLine(line, row) {
    row.told = JSON.stringify(line); // its place in the file is in it, so no other line is the same
    if (this.lost && [...this.rows.children].some(({ told }) => told === row.told)) {
      this.lost.textContent = "The server was started anew; no line is missing.";
    } else {
      this.lost = null;
      this.add(row);
    }
  },

  line(line) {
    const { place, time, method, path, status, subject } = line;
    const at = new Date(time);
    this.addLine(line, el("tr", { class: "new", "data-place": place },
      el("td", { title: time }, Number.isNaN(at.valueOf()) ? "–" : clock.format(at)),
      el("td", { class: `s${String(status)[0]}` }, String(status)),
      el("td", { title: `${method} ${path}` }, el("span", { class: "method" }, `${method} `), path),
      el("td", { title: subject ?? "nobody signed in" }, subject ?? "–")));
  },

  /** A row of one cell across all columns. */
  wide(kind, text, place = "") {
    return el("tr", { class: `new ${kind}`, "data-place": place }, el("td", { colspan: "4" }, text));
  },

  note(text) {
    const row = this.wide("gap", text);
    this.add(row);
    return row.firstElementChild;
  },
};
audit.stream = {
  path: "/api/v1/audit/stream",
  permission: "audit.read",
  events: {
    audit: (line) => audit.line(line),
    "audit-raw": (line) => audit.addLine(line, audit.wide("raw", line.line, line.place)),
    "audit-gap": ({ reason }) => audit.note(`Lines are missing: ${reason}.`),
  },
  gap: (missed) => (audit.lost = audit.note(missed === null ? "The server no longer knows this page's place; lines may be missing." : `${plural(missed, "line")} missing.`)),
};

// ---------------------------------------------------------------------------------------------------------------------
// Builds: the feed

const BUILDS = 20;
const builds = {
  list: $("#build-list"),
  empty: $("#build-list .empty"),
  known: new Map(), // number -> { row, startedAt, warnings, part }

  clear() {
    this.known.clear();
    this.list.replaceChildren(this.empty);
    this.say("");
  },

  say(sentence) {
    $("#build-words").textContent = sentence;
  },

  /** The row of a build, made at its first event. */
  at(number) {
    let build = this.known.get(number);
    if (build) return build;
    const part = {
      phase: el("span", { class: "phase" }), time: el("span"), tally: el("span"), command: el("code", { class: "command" }),
      artifacts: el("p", { class: "artifacts" }), diagnostics: el("div"),
    };
    const row = el("li", { "data-build": number },
      el("div", { class: "build-line" }, el("b", {}, `Build ${number}`), part.phase, part.time, part.tally),
      el("div", { class: "progress", "aria-hidden": "true" }), part.command, part.artifacts, part.diagnostics);
    build = { row, part, startedAt: 0, artifacts: 0, fresh: 0, warnings: 0, errors: 0 };
    this.known.set(number, build);
    this.empty.remove();
    this.list.prepend(row);
    if (this.known.size > BUILDS) {
      const [oldest] = this.known.keys();
      this.known.get(oldest).row.remove();
      this.known.delete(oldest);
    }
    return build;
  },

  phase(build, phase, text) {
    build.row.dataset.phase = phase;
    build.part.phase.textContent = text;
  },

  /** Builds that were under way when the page stopped hearing of them: how they ended is not known. */
  loseSight() {
    for (const build of this.known.values()) {
      if (["queued", "building"].includes(build.row.dataset.phase)) this.phase(build, "unknown", "out of sight");
      build.startedAt = 0;
    }
  },

  queued({ build: number, broken }) {
    this.known.get(number)?.row.remove(); // told again from its beginning
    this.known.delete(number);
    this.loseSight(); // one build at a time: another that seems to run has ended unseen
    this.phase(this.at(number), "queued", broken ? "queued, to be broken" : "queued");
  },

  started({ build: number, command }) {
    const build = this.at(number);
    build.startedAt = performance.now();
    build.part.command.textContent = build.part.command.title = command;
    this.phase(build, "building", "building");
  },

  artifact({ build: number, name, fresh }) {
    const build = this.at(number);
    build.artifacts += 1;
    build.fresh += fresh ? 1 : 0;
    const before = build.fresh ? `, ${build.fresh} of them built before` : "";
    build.part.artifacts.textContent = `${plural(build.artifacts, "artifact")}${before}; the latest is ${name}`;
  },

  diagnostic({ build: number, level, text, rendered, file, line }) {
    const build = this.at(number);
    const error = level === "error";
    build[error ? "errors" : "warnings"] += 1;
    const tally = [build.errors && plural(build.errors, "error"), build.warnings && plural(build.warnings, "warning")];
    build.part.tally.textContent = tally.filter(Boolean).join(", ");
    const place = file ? `${file}${line ? `:${line}` : ""}` : "";
    build.part.diagnostics.append(el("details", { "data-level": level },
      el("summary", {}, el("span", { class: error ? "level error" : "level" }, level), " ", text, " ", el("span", { class: "place" }, place)),
      el("pre", { tabindex: "0" }, rendered ?? text)));
  },

  ended(number, phase, text, took) {
    const build = this.at(number);
    build.startedAt = 0;
    build.part.time.textContent = `${took.toFixed(1)} s`;
    this.phase(build, phase, text);
  },

  /** Running times, as long as there is somebody to hear from. */
  tick(now) {
    if (buildsCard.stream.state !== "live") return;
    for (const { startedAt, part } of this.known.values()) {
      if (startedAt) part.time.textContent = `${((now - startedAt) / 1000).toFixed(1)} s`;
    }
  },
};
builds.stream = {
  path: "/api/v1/builds/stream",
  permission: "builds.read",
  lastEvent: "finished",
  afterLast: "The next build opens the stream again.",
  events: {
    queued: (data) => builds.queued(data),
    started: (data) => builds.started(data),
    artifact: (data) => builds.artifact(data),
    diagnostic: (data) => builds.diagnostic(data),
    failed: ({ build, seconds: took }) => {
      builds.ended(build, "failed", "failed", took);
      builds.say("A failure is an event like any other: the stream goes on.");
    },
    finished: ({ build, seconds: took }) => {
      builds.ended(build, "finished", "finished", took);
      builds.say("");
    },
  },
  gap: (missed) => {
    builds.loseSight();
    builds.say(missed === null ? "The server no longer knows this page's place; events may be missing." : `${plural(missed, "event")} missing.`);
  },
};

$("#build-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!session) return builds.say("Sign in first.");
  const button = $("#start-build");
  button.disabled = true;
  try {
    const { build } = await startBuild($("#break-it").checked);
    // A finished build has ended the stream for good. Opened afresh, it begins with the newest build: this one.
    const { stream } = buildsCard;
    if (stream.state === "ended") stream.open(session.token, { fresh: true });
    for (let wait = 0; stream.state === "connecting" && wait < 60; wait++) await new Promise((done) => setTimeout(done, 50));
    builds.say(["live", "ended"].includes(stream.state) ? "" : `Build ${build} runs, but its stream is not open.`);
  } catch (error) {
    const why = { 401: "Not signed in any more", 403: "Signed in, but lacks builds.start", 409: "Not now" }[error.status];
    builds.say(`${why ?? "Not started"}: ${words(error)}.`.replace(/\.\.$/, "."));
  }
  button.disabled = false;
});

async function startBuild(broken) {
  try {
    return await call("/api/v1/builds", { broken }, session.token);
  } catch (error) {
    if (error.status !== 401 || !$("#auto-renew").checked) throw error;
    await renew();
    return call("/api/v1/builds", { broken }, session.token);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// All together

const cards = [];
const streams = [];
for (const [name, view] of Object.entries({ usage, audit, builds })) {
  const card = new Card(name, view);
  cards.push(card);
  streams.push(card.stream);
}
const buildsCard = cards[2];
showSession();

const TICK_MS = 250;
let tickedAt = performance.now();
setInterval(() => {
  const now = performance.now();
  const slept = now - tickedAt > 20 * TICK_MS;
  tickedAt = now;
  for (const stream of streams) {
    if (slept) stream.forgive(now);
    stream.tick(now);
  }
  if (document.hidden) return;
  showToken(now);
  for (const card of cards) {
    card.showPill(now);
    card.drawWire(now);
  }
  if (now - usage.drawnAt > 1500) usage.draw(); // time passes without readings too
  builds.tick(now);
}, TICK_MS);

// A page that is left keeps no connection; one that comes back out of the browser's cache opens them again where they stood.
addEventListener("pagehide", () => {
  for (const stream of streams) if (!["idle", "ended", "refused", "expired"].includes(stream.state)) stream.rest("idle", "closed", "Closed while the page was away.");
});
addEventListener("pageshow", ({ persisted }) => {
  if (persisted && session) for (const stream of streams) if (stream.state === "idle") stream.open(session.token);
});
