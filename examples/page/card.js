// A card shows one stream: its state, its connection during the last minute, its counters and its data.

import { $, clock, el, setText } from "./dom.js";
import { LiveStream } from "./live-stream.js";

const WIRE_MS = 60_000;

export class Card {
  /** `view` is the module of the stream: `{ clear, tick, stream }`. The last two callbacks are the card's buttons. */
  constructor(name, view, { onChange, onUnauthorized, onRenew, onReopen }) {
    this.view = view;
    this.root = $(`#${name}`);
    this.part = {};
    const top = $("#connection-top").content.cloneNode(true);
    const bottom = $("#connection-bottom").content.cloneNode(true);
    for (const half of [top, bottom]) for (const node of half.querySelectorAll("[data-of]")) this.part[node.dataset.of] = node;
    $(".card-head", this.root).append($(".pill", top));
    $(".card-head", this.root).after(top);
    this.root.append(bottom);

    this.stream = new LiveStream(view.stream, {
      onChange: (what) => {
        this.#changed(what);
        onChange(this, what);
      },
      onUnauthorized,
    });
    this.part.action.addEventListener("click", () => (this.#action === "Renew" ? onRenew() : onReopen(this.stream)));
    this.curl = this.#makeCurl();
    this.clear();
  }

  /** Removes all data, for another person. */
  clear() {
    this.marks = { event: [], heartbeat: [], closed: [], lost: [] }; // times, newest last
    this.openSpans = []; // [from, to] while open; `to` is null for the current one
    this.lastEventAt = null; // wall clock
    this.outdated = false;
    this.stream.reset();
    this.view.clear();
    this.show();
  }

  #changed(what) {
    const now = performance.now();
    if (what === "state") {
      const { state, complete } = this.stream;
      const current = this.openSpans.findLast(([, to]) => to === null);
      if (state === "live" && !current) this.openSpans.push([now, null]);
      if (state !== "live" && current) current[1] = now;
      // A short reconnect does not change how the data looks: what is outdated stays so until the stream is live.
      if (state !== "connecting") this.outdated = state !== "live" && !complete && this.lastEventAt !== null;
    } else {
      this.marks[what]?.push(now);
      if (what === "event") this.lastEventAt = new Date();
    }
    this.#forgetBefore(now - WIRE_MS); // here too: a hidden tab draws nothing
    this.show();
  }

  /** What the button beside the sentence does in this state. Empty: no button. */
  get #action() {
    const { state, complete } = this.stream;
    if (state === "unauthorized") return "Renew";
    return state === "ended" && !complete ? "Open again" : "";
  }

  get #sentence() {
    const { stream, outdated, lastEventAt } = this;
    const hint = stream.label === "refused 403" ? " Tick it above." : "";
    const age = outdated ? ` Last data: ${clock.format(lastEventAt)}.` : "";
    return stream.sentence + hint + age;
  }

  show() {
    const { stream, part, root } = this;
    // The browser test reads these attributes too.
    Object.assign(root.dataset, { state: stream.state, lastId: stream.lastEventId, lastClose: stream.lastClose, ...stream.counts });
    root.toggleAttribute("data-outdated", this.outdated);
    setText(part.sentence, this.#sentence);
    setText(part.action, this.#action);
    part.action.hidden = !this.#action;
    const { reconnects, reopened, ...counts } = stream.counts;
    for (const [name, count] of Object.entries(counts)) setText(part[name], String(count));
    setText(part.reconnects, String(reconnects + reopened));
    part.reconnects.title = `${reconnects} by the browser, ${reopened} by the page's watchdog`;
    setText(part["last-id"], stream.lastEventId || "none");
    setText(part["last-close"], stream.lastClose || "none");
    part["last-id"].title = stream.lastEventId;
    this.#showPill(performance.now());
  }

  /** Redraws what changes as time goes by. */
  tick(now) {
    this.#showPill(now);
    this.#drawWire(now);
    this.view.tick(now, this.stream.state === "live");
  }

  #showPill(now) {
    const left = this.stream.retryAt - now;
    setText(this.part.pill, this.stream.label + (left > 0 ? ` in ${Math.ceil(left / 1000)} s` : ""));
  }

  #forgetBefore(since) {
    for (const times of Object.values(this.marks)) while (times.length && times[0] < since) times.shift();
    this.openSpans = this.openSpans.filter(([, to]) => to === null || to > since);
  }

  /** Draws what happened on this connection in the last minute, the newest at the right. */
  #drawWire(now) {
    const since = now - WIRE_MS;
    const x = (time) => (Math.max(0, time - since) / WIRE_MS * 600).toFixed(1);
    this.#forgetBefore(since);
    // A line of no length is a dot, as large as its stroke is wide.
    const shapes = { event: "1V13", heartbeat: "4.5V9.5", closed: "7h0", lost: "7h0" };
    for (const [kind, shape] of Object.entries(shapes)) {
      this.part[`wire-${kind}`].setAttribute("d", this.marks[kind].map((time) => `M${x(time)} ${shape}`).join(""));
    }
    this.part["wire-open"].setAttribute("d", this.openSpans.map(([from, to]) => `M${x(from)} 7H${x(to ?? now)}`).join(""));
  }

  #makeCurl() {
    const line = el("code");
    const copy = el("button", { type: "button", "aria-label": `Copy the curl line for ${this.stream.path}` }, "Copy");
    copy.addEventListener("click", async () => {
      copy.textContent = (await copyText(this.#curlLine(this.token))) ? "Copied" : "No access";
      setTimeout(() => (copy.textContent = "Copy"), 1500);
    });
    $("#curl-lines").append(el("li", {}, line, copy));
    return { line, copy };
  }

  #curlLine(token) {
    const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
    return `curl -N ${quoted(location.origin + this.stream.path)} -H ${quoted(`Authorization: Bearer ${token}`)}`;
  }

  /** Puts a token into the curl line, or a placeholder. The page shows a few characters of it only. */
  showCurl(token) {
    this.token = token;
    setText(this.curl.line, this.#curlLine(token ? `${token.slice(0, 10)}…` : "TOKEN"));
    this.curl.copy.disabled = !token;
  }
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without HTTPS only localhost has the clipboard. The old way needs a selection.
    const box = el("textarea", { readonly: "" });
    box.value = text;
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    return done;
  }
}
