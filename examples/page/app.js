// The page of the live example. This module signs in, opens the three streams, and decides what a refused token leads to.
//
//   live-stream.js   an EventSource for production: the part to copy
//   session.js       the token
//   card.js          what every stream shows
//   usage.js, audit.js, builds.js   the three streams, each beside the Rust file of the same name

import { audit } from "./audit.js";
import { builds, say as sayBuild } from "./builds.js";
import { Card } from "./card.js";
import { $, setText } from "./dom.js";
import { Session, explain, post } from "./session.js";
import { usage } from "./usage.js";

const form = $("#session");
const boxes = [...form.querySelectorAll("[name=permission]")];
const autoRenew = $("#auto-renew");
const startButton = $("#start-build");
const say = (sentence) => setText($("#session-message"), sentence);

const session = new Session({ onRetry: (error) => say(`No token yet: ${explain(error)}. Trying again.`) });
const cards = Object.entries({ usage, audit, builds }).map(
  ([name, view]) => new Card(name, view, { onChange, onUnauthorized, onRenew, onReopen }),
);
const streams = cards.map(({ stream }) => stream);
const buildStream = streams[2];

// ---------------------------------------------------------------------------------------------------------------------
// Signing in, and changing the choice of permissions

function readForm() {
  const permissions = boxes.filter(({ checked }) => checked).map(({ value }) => value);
  return { subject: $("#subject").value.trim(), permissions, ttl: `${$("#ttl").valueAsNumber}s` };
}

/** "with all four permissions", "without usage.read and audit.read" */
function describe({ permissions }) {
  const missing = boxes.map(({ value }) => value).filter((name) => !permissions.includes(name));
  if (missing.length === 0) return "with all four permissions";
  if (permissions.length === 0) return "without any permission";
  return `without ${missing.join(", ").replace(/, (?=[^,]*$)/, " and ")}`;
}

/** Signs in with what the form shows. Each change of the form does it again. */
async function signIn() {
  if (!form.reportValidity()) return;
  const request = readForm();
  if (session.wanted && !session.expired && JSON.stringify(session.wanted) === JSON.stringify(request)) return;
  const before = session.current;
  say(before ? "Signing in again." : "Signing in.");
  try {
    if (!(await session.signIn(request))) return;
    say(`Signed in as ${request.subject} ${describe(request)}.`);
    const samePerson = before?.request.subject === request.subject;
    if (!samePerson) for (const card of cards) card.clear();
    for (const stream of streams) stream.open(session.current.token, { fresh: !samePerson });
  } catch (error) {
    say(`No token: ${explain(error)}.`);
  }
  showSession();
}

function signOut() {
  session.signOut();
  for (const stream of streams) stream.close("idle", "signed out", "Sign in to open this stream.");
  sayBuild("");
  say("Signed out. The page closed all three streams.");
  showSession();
  $("#sign-in").focus();
}

/** Gets a new token with the same permissions, and opens the streams that wait for one. */
async function renew(reason) {
  if (!session.current) return;
  const { pending } = session; // a request that another stream or a change of the form made; its caller reports it
  try {
    if (!(await (pending ?? session.renew()))) return;
    const { token, request } = session.current;
    if (!pending) say(`${reason} Signed in again as ${request.subject}, with the same permissions.`);
    for (const stream of streams) if (stream.state === "unauthorized") stream.open(token);
  } catch (error) {
    say(`No new token: ${explain(error)}.`);
  }
  showSession();
}

/**
 * A stream needs another token: its own expired, or the server answered 401 with `detail`. After a restart the example
 * has a new secret, and no token from before is valid. A real page sends the user to its identity provider here.
 */
function onUnauthorized(stream, detail) {
  const { current } = session;
  if (!current) return;
  if (stream.token !== current.token) return stream.open(current.token); // another stream renewed it already
  const expired = detail === undefined || session.expired || detail.includes("expired");
  if (expired) current.expiresAt = Math.min(current.expiresAt, performance.now()); // the server's clock decides
  const label = expired ? "token expired" : "refused 401";
  if (expired && !autoRenew.checked) {
    stream.close("unauthorized", label, "The token expired. Renew it to resume.");
    say("The token expired. Renew it to resume the streams.");
  } else if (!expired && !current.accepted) {
    stream.close("unauthorized", label, `The server refused a new token: ${detail}.`); // no loop of refused tokens
  } else {
    stream.close("unauthorized", label, `${expired ? "The token expired." : "The server refused the token."} Getting a new one.`);
    renew(expired ? "The token expired." : "The server refused the old token: a restart gives it a new secret.");
  }
  showSession();
}

function onRenew() {
  renew("Token renewed.");
}

function onReopen(stream) {
  if (session.current) stream.open(session.current.token);
}

function onChange({ stream }, what) {
  if (what !== "state") return;
  if (stream.state === "live" && session.current?.token === stream.token) session.current.accepted = true;
  showStartButton();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  signIn();
});
form.addEventListener("change", ({ target }) => {
  if (target !== autoRenew) return session.current && signIn();
  if (autoRenew.checked && streams.some(({ state }) => state === "unauthorized")) onRenew();
});
$("#sign-out").addEventListener("click", signOut);
$("#renew").addEventListener("click", onRenew);

function showSession() {
  const { current } = session;
  $("#sign-in").hidden = current !== null;
  $("#sign-out").hidden = current === null;
  $("#renew").disabled = current === null;
  for (const card of cards) card.showCurl(current?.token ?? "");
  showToken(performance.now());
  showStartButton();
}

function showToken(now) {
  const { current } = session;
  const left = current ? current.expiresAt - now : 0;
  const share = current ? Math.max(0, left / (current.expiresAt - current.issuedAt)) : 0;
  form.dataset.token = !current ? "none" : left <= 0 ? "expired" : share < 0.2 ? "low" : "good";
  $("#token-bar").style.transform = `scaleX(${share.toFixed(4)})`;
  const seconds = Math.ceil(left / 1000);
  const time = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  setText($("#token-left"), !current ? "No token" : left > 0 ? `Token expires in ${time}` : "Token expired");
}

// ---------------------------------------------------------------------------------------------------------------------
// Starting a build

let starting = false;

/** A build needs a token, and only one runs at a time. Without `builds.start` the server's refusal is worth seeing. */
function showStartButton() {
  const usable = session.current && (!session.expired || autoRenew.checked);
  startButton.disabled = !usable || starting || (buildStream.state === "live" && builds.isRunning());
}

$("#build-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (startButton.disabled) return; // Enter in the form submits it too
  starting = true;
  showStartButton();
  try {
    await startBuild($("#break-it").checked);
    sayBuild("");
    // A finished build ended the stream. Opened without a position, it starts with the newest build: this one.
    if (buildStream.complete) buildStream.open(session.current.token, { fresh: true });
    else if (buildStream.state === "refused") sayBuild("The build runs. Its stream is not open.");
  } catch (error) {
    const what = { 401: "Refused with 401", 403: "Refused with 403", 409: "Refused with 409" }[error.status];
    sayBuild(`${what ?? "Not started"}: ${explain(error)}.`.replace(/\.\.$/, "."));
  }
  starting = false;
  showStartButton();
});

async function startBuild(broken) {
  try {
    return await post("/api/v1/builds", { broken }, session.current.token);
  } catch (error) {
    if (error.status !== 401 || !autoRenew.checked) throw error;
    await renew("The server refused the token.");
    if (!session.current) throw error;
    return post("/api/v1/builds", { broken }, session.current.token);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// The clock of the page

const TICK_MS = 250;
let tickedAt = performance.now();
setInterval(() => {
  const now = performance.now();
  const slept = now - tickedAt > 20 * TICK_MS;
  tickedAt = now;
  for (const stream of streams) {
    if (slept) stream.excuse(now);
    stream.tick(now);
  }
  if (document.hidden) return;
  showToken(now);
  showStartButton();
  for (const card of cards) card.tick(now);
}, TICK_MS);

// A page in the browser's back-forward cache holds no connection. When it returns, it resumes.
addEventListener("pagehide", () => {
  for (const stream of streams) {
    if (!["idle", "ended", "refused", "unauthorized"].includes(stream.state)) stream.close("idle", "closed", "Closed while the page was in the background.");
  }
});
addEventListener("pageshow", ({ persisted }) => {
  if (persisted && session.current) for (const stream of streams) if (stream.state === "idle") stream.open(session.current.token);
});

showSession();
signIn();
