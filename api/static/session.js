// The logged-in user and the tokens.
//
// They are in localStorage, so that all tabs of the browser share one login, and a tab that is opened needs none. The
// browser tells the other tabs what one of them stores: a login, the next pair of tokens, a logout. (Cookies would be
// sent even with requests that other pages start. Only a script in this page could read the storage, and the page's policy
// allows no foreign ones.) A refresh token is single-use, so only one tab at a time exchanges it.

import { Problem, send } from "./http.js";

const STORAGE_KEY = "promptwire.login";
const LOCK = "promptwire.refresh";
const MAX_TURN = 1_000; // milliseconds

export class Session {
  #stored = null; // { username, access, refresh }
  #refreshing = null;

  /**
   * `onExpired(username)` is called when the user must enter the password again, and `onChange()` when another tab has
   * logged in or out.
   */
  constructor(onExpired, onChange) {
    Object.assign(this, { onExpired, onChange });
    addEventListener("storage", ({ key }) => (key === STORAGE_KEY || key === null) && this.#follow());
    // The browser may show a page again as it was, after "Back". It has missed these events then.
    addEventListener("pageshow", ({ persisted }) => persisted && this.#follow());
  }

  get username() {
    return this.#stored?.username ?? null;
  }

  /** Resumes the login of this browser. Returns whether there is one. */
  resume() {
    this.#stored = read();
    return this.#stored !== null;
  }

  async register(username, password) {
    await send("POST", "auth/register/", { body: { username, password } });
  }

  async logIn(username, password) {
    const { body } = await send("POST", "login/", { body: { username, password } });
    this.#store({ username, ...body });
  }

  /** Takes over the tokens of a login that was started elsewhere. */
  start(username, pair) {
    this.#store({ username, ...pair });
  }

  /** Logs out in all tabs. */
  async logOut() {
    const refresh = this.#stored?.refresh;
    this.#store(null);
    // If this fails, the login expires on the server by itself.
    if (refresh) await send("POST", "auth/logout/", { body: { refresh } }).catch(() => {});
  }

  /** An access token that was valid when it was last used. */
  async token() {
    if (!this.#stored) throw new Problem(401, { detail: "Log in again." }, null);
    return this.#stored.access;
  }

  /** Exchanges the refresh token for the next pair, unless another tab has. Concurrent callers share one exchange. */
  refresh() {
    this.#refreshing ??= locked(() => this.#exchange()).finally(() => (this.#refreshing = null));
    return this.#refreshing;
  }

  /** Sends a request as this user. If the access token has expired, refreshes it and sends the request again. */
  async send(method, path, options = {}) {
    const { username } = this;
    const token = await this.token();
    try {
      return await send(method, path, { ...options, token });
    } catch (error) {
      if (!(error instanceof Problem && error.status === 401)) throw error;
      if (this.#stored?.access === token) await this.refresh();
      if (this.username !== username) throw error;
      return send(method, path, { ...options, token: await this.token() });
    }
  }

  /** Takes over what another tab has stored. */
  #follow() {
    const { username } = this;
    this.#stored = read();
    if (this.username !== username) this.onChange();
  }

  async #exchange() {
    const used = this.#stored;
    if (!used) throw new Problem(401, { detail: "Log in again." }, null);
    const newest = read();
    // Another tab has logged out, or in as another user: its event follows.
    if (newest?.username !== used.username) throw new Problem(401, { detail: "Log in again." }, null);
    if (newest.refresh !== used.refresh) {
      this.#stored = newest; // another tab was faster
      return;
    }
    try {
      const { body: pair } = await send("POST", "auth/refresh/", { body: { refresh: used.refresh } });
      if (this.#stored !== used) return; // the user has logged out, or in again
      this.#store({ username: used.username, ...pair });
    } catch (error) {
      if (error instanceof Problem && error.status === 401 && this.#stored === used) {
        // It stays stored: without it the other tabs would take this for a logout, and discard what is written there.
        this.#stored = null;
        this.onExpired(used.username);
      }
      throw error;
    }
  }

  #store(login) {
    this.#stored = login;
    if (login) localStorage.setItem(STORAGE_KEY, JSON.stringify(login));
    else localStorage.removeItem(STORAGE_KEY);
  }
}

function read() {
  return JSON.parse(localStorage.getItem(STORAGE_KEY));
}

/** Runs a function while no other tab does. */
async function locked(run) {
  if (navigator.locks) return navigator.locks.request(LOCK, run);
  // Pages that are served over plain HTTP from another machine have no locks. The same token expires in all tabs at once,
  // so each waits for some time, in which another one may have stored the next.
  await new Promise((resolve) => setTimeout(resolve, Math.random() * MAX_TURN));
  return run();
}
