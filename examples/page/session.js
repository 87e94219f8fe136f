// The session: which token this page holds, and how it gets the next one. The token lives in memory only.

const MIN_AGE_MS = 1_000; // of a token that is renewed: at most one a second, however short its lifetime
const RETRY_MS = 1_000; // before the second request for a token; doubles from there
const MAX_RETRY_MS = 30_000;

/** A message for people, from anything that `fetch` or `post` threw. */
export function explain(error) {
  if (error.name === "TimeoutError") return "no answer; other tabs may hold all six connections to this server";
  return error instanceof TypeError ? "the server cannot be reached" : error.message; // fetch gives no more than a TypeError
}

/** Posts JSON. If the answer is no success, throws an Error with its `status` and the text of the problem document. */
export async function post(path, body, token) {
  const headers = { "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal: AbortSignal.timeout(10_000) });
  const result = await answer.json().catch(() => ({}));
  if (answer.ok) return result;
  throw Object.assign(new Error(result.detail || result.title || `the server answered ${answer.status}`), { status: answer.status });
}

async function requestToken(request) {
  const { token } = await post("/token", request);
  const issuedAt = performance.now();
  return { token, request, issuedAt, expiresAt: issuedAt + parseFloat(request.ttl) * 1000, accepted: false };
}

export class Session {
  /** `{ token, request, issuedAt, expiresAt, accepted }`, or null while signed out. Times are this page's own. */
  current = null;

  /** The newest request, which may still be waiting for its token. */
  wanted = null;

  /** The promise of its token while it waits, or null. */
  pending = null;

  /** `onRetry(error)`: the server did not issue a token, and the session asks again. */
  constructor({ onRetry }) {
    this.onRetry = onRetry;
  }

  /** Whether the token's lifetime is over. */
  get expired() {
    return this.current !== null && performance.now() >= this.current.expiresAt;
  }

  /**
   * Gets a token for `{ subject, permissions, ttl }`, and keeps trying while the server is away. Returns false if a
   * newer call or a `signOut` replaced this one.
   */
  signIn(request, delayMs = 0) {
    this.wanted = request;
    const pending = this.#obtain(request, delayMs).finally(() => {
      if (this.pending === pending) this.pending = null;
    });
    return (this.pending = pending);
  }

  /** Gets a new token for the same subject and permissions. */
  renew() {
    const { request, issuedAt } = this.current;
    const age = performance.now() - issuedAt;
    return this.signIn({ ...request }, Math.max(0, MIN_AGE_MS - age));
  }

  signOut() {
    this.current = this.wanted = this.pending = null;
  }

  async #obtain(request, delayMs) {
    if (delayMs) await sleep(delayMs);
    for (let retryMs = RETRY_MS; this.wanted === request; retryMs = Math.min(MAX_RETRY_MS, 2 * retryMs)) {
      try {
        const issued = await requestToken(request);
        if (this.wanted !== request) return false;
        this.current = issued;
        return true;
      } catch (error) {
        if (this.wanted !== request) return false;
        if (error.status >= 400 && error.status < 500) {
          this.wanted = this.current?.request ?? null;
          throw error; // the same request fails again
        }
        this.onRetry(error);
        await sleep(retryMs * (1 + Math.random() / 2)); // with jitter: clients must not return in step
      }
    }
    return false;
  }
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
