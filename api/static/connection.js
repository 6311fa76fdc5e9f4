// The socket: joins the user's room, stays there, and comes back with `since`, so that no event is missed or told twice.

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 20_000;
// A laptop that slept holds a socket that is dead and does not know it.
const PING_EVERY = 25_000;
const PONG_WITHIN = 10_000;
const UNAUTHENTICATED = 4401;

export class Connection {
  #socket = null;
  #since = null;
  #failures = 0;
  #timer = null;
  #ping = null;
  #pong = null;
  #left = false;

  /**
   * `session` gives the name and the tokens. `on` has `joined(isFirst)`, `event(message)`, `reset()`, and
   * `state(name, pause)`: "connecting", "live", or "waiting" with the milliseconds until the next attempt.
   */
  constructor(session, on) {
    this.session = session;
    this.on = on;
    addEventListener("online", this.#soon);
    document.addEventListener("visibilitychange", this.#soon);
    this.#open();
  }

  /** How often in a row it did not succeed. */
  get failures() {
    return this.#failures;
  }

  /** Tries at once, if it was waiting. */
  now() {
    if (this.#timer === null) return;
    clearTimeout(this.#timer);
    this.#open();
  }

  leave() {
    this.#left = true;
    clearTimeout(this.#timer);
    this.#quieten();
    removeEventListener("online", this.#soon);
    document.removeEventListener("visibilitychange", this.#soon);
    this.#socket?.close();
  }

  #soon = () => {
    if (document.visibilityState === "visible") this.now();
  };

  async #open() {
    this.#timer = null;
    this.on.state("connecting");
    let token;
    try {
      token = await this.session.token();
    } catch {
      return this.#later();
    }
    if (this.#left) return;
    const url = new URL(`/ws/prompts/${encodeURIComponent(this.session.username)}/`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.#since !== null) url.searchParams.set("since", this.#since);
    const socket = new WebSocket(url, ["bearer", token]);
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#hear(JSON.parse(data));
    socket.onclose = ({ code }) => this.#lost(socket, code);
  }

  #hear(message) {
    clearTimeout(this.#pong);
    if (message.type === "connected") {
      this.#failures = 0;
      const isFirst = this.#since === null;
      this.#since ??= message.seq;
      this.#ping = setInterval(() => this.#askWhetherAlive(), PING_EVERY);
      this.on.state("live");
      this.on.joined(isFirst);
    } else if (message.type === "reset") {
      this.#since = message.seq;
      this.on.reset();
    } else if (message.type === "prompt.delta") {
      this.on.event(message);
    } else if (message.seq > this.#since) {
      this.#since = message.seq;
      this.on.event(message);
    }
  }

  #askWhetherAlive() {
    this.#socket.send(JSON.stringify({ type: "ping" }));
    clearTimeout(this.#pong);
    const asked = this.#socket;
    this.#pong = setTimeout(() => {
      asked.close();
      this.#lost(asked, null);
    }, PONG_WITHIN);
  }

  async #lost(socket, code) {
    if (this.#left || socket !== this.#socket) return;
    this.#socket = null;
    this.#quieten();
    if (code !== UNAUTHENTICATED) return this.#later();
    // The token has expired, as it does every quarter of an hour. With another one it comes back at once.
    try {
      await this.session.renew();
    } catch {
      return this.#later();
    }
    return this.#failures === 0 ? this.#comeBack() : this.#later();
  }

  #comeBack() {
    this.#failures += 1;
    if (!this.#left) this.#open();
  }

  /** Exponential back-off with jitter, so that a server that returns is not overrun by all at once. */
  #later() {
    if (this.#left) return;
    const pause = Math.min(FIRST_PAUSE * 2 ** this.#failures, LONGEST_PAUSE) * (0.5 + Math.random() / 2);
    this.#failures += 1;
    this.#timer = setTimeout(() => this.#open(), pause);
    this.on.state("waiting", pause);
  }

  #quieten() {
    clearInterval(this.#ping);
    clearTimeout(this.#pong);
  }
}
