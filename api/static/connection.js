// The WebSocket: connects to the user's room and reconnects with `since`, so that no event is missed or handled twice.

import { address } from "./http.js";

// In milliseconds.
const FIRST_DELAY = 500;
const MAX_DELAY = 20_000;
// A proxy may keep a handshake, or the messages after it, for minutes.
const JOIN_TIMEOUT = 15_000;
// After a laptop has slept, its socket may be dead without a close event.
const PING_INTERVAL = 25_000;
const PONG_TIMEOUT = 10_000;
const UNAUTHENTICATED = 4401;

export class Connection {
  #socket = null;
  #since = null;
  #failures = 0;
  #retryTimer = null;
  #joinTimer = null;
  #pingTimer = null;
  #pongTimer = null;
  #isClosed = false;

  /**
   * `session` has the username and the tokens. `on` has `joined()`, `event(message)`, `reset()`, and
   * `state(name, delay)`: "connecting", "live", or "waiting" with the milliseconds until the next attempt. `since` is the
   * last event of an earlier connection, or null.
   */
  constructor(session, on, since = null) {
    this.session = session;
    this.on = on;
    this.#since = since;
    addEventListener("online", this.#onWake);
    document.addEventListener("visibilitychange", this.#onWake);
    this.#open();
  }

  /** The number of attempts that failed since the last success. */
  get failures() {
    return this.#failures;
  }

  /** The number of the last event. */
  get since() {
    return this.#since;
  }

  /** Whether it was ever connected. */
  get hasJoined() {
    return this.#since !== null;
  }

  /** Connects at once if it is waiting for the next attempt. */
  retryNow() {
    if (this.#retryTimer === null) return;
    clearTimeout(this.#retryTimer);
    this.#open();
  }

  close() {
    this.#isClosed = true;
    clearTimeout(this.#retryTimer);
    this.#stopTimers();
    removeEventListener("online", this.#onWake);
    document.removeEventListener("visibilitychange", this.#onWake);
    this.#socket?.close();
  }

  #onWake = () => {
    if (document.visibilityState === "visible") this.retryNow();
  };

  async #open() {
    this.#retryTimer = null;
    this.on.state("connecting");
    let token;
    try {
      token = await this.session.token();
    } catch {
      return this.#retryLater();
    }
    if (this.#isClosed) return;
    const url = address(`ws/prompts/${encodeURIComponent(this.session.username)}/`);
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("all", "true"); // also prompts submitted without `websocket`, and deletions
    if (this.#since !== null) url.searchParams.set("since", this.#since);
    const socket = new WebSocket(url, ["bearer", token]);
    this.#socket = socket;
    socket.onmessage = ({ data }) => socket === this.#socket && this.#handle(JSON.parse(data));
    socket.onclose = ({ code }) => this.#onClose(socket, code);
    this.#joinTimer = setTimeout(() => this.#giveUp(socket), JOIN_TIMEOUT);
  }

  #handle(message) {
    clearTimeout(this.#pongTimer);
    if (message.type === "connected") {
      clearTimeout(this.#joinTimer);
      this.#failures = 0;
      this.#since ??= message.seq;
      this.#pingTimer = setInterval(() => this.#sendPing(), PING_INTERVAL);
      this.on.state("live");
      this.on.joined();
    } else if (message.type === "reset") {
      this.#since = message.seq;
      this.on.reset();
    } else if (message.type === "prompt.delta") {
      this.on.event(message);
    } else if (message.seq > this.#since) {
      this.#since = message.seq;
      if (message.type.startsWith("prompt.")) this.on.event(message);
    }
  }

  #sendPing() {
    this.#socket.send(JSON.stringify({ type: "ping" }));
    clearTimeout(this.#pongTimer);
    const socket = this.#socket;
    this.#pongTimer = setTimeout(() => this.#giveUp(socket), PONG_TIMEOUT);
  }

  /** Ends a socket that does not answer, without waiting for its close event. */
  #giveUp(socket) {
    socket.close();
    this.#onClose(socket, null);
  }

  async #onClose(socket, code) {
    if (this.#isClosed || socket !== this.#socket) return;
    this.#socket = null;
    this.#stopTimers();
    if (code !== UNAUTHENTICATED) return this.#retryLater();
    // The access token has expired, as it does every 15 minutes. Reconnect at once with a new one.
    try {
      await this.session.refresh();
    } catch {
      return this.#retryLater();
    }
    return this.#failures === 0 ? this.#reconnect() : this.#retryLater();
  }

  #reconnect() {
    this.#failures += 1;
    if (!this.#isClosed) this.#open();
  }

  /** Exponential back-off with jitter, so that not all clients reconnect to a restarted server at once. */
  #retryLater() {
    if (this.#isClosed) return;
    const delay = Math.min(FIRST_DELAY * 2 ** this.#failures, MAX_DELAY) * (0.5 + Math.random() / 2);
    this.#failures += 1;
    this.#retryTimer = setTimeout(() => this.#open(), delay);
    this.on.state("waiting", delay);
  }

  #stopTimers() {
    clearTimeout(this.#joinTimer);
    clearInterval(this.#pingTimer);
    clearTimeout(this.#pongTimer);
  }
}
