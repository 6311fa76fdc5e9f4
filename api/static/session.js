// The logged-in user and the tokens.
//
// They are in IndexedDB, so that all tabs of the browser share one login, and a tab that is opened needs none. A tab tells
// the others when it has stored something: a login, the next pair of tokens, a logout. (Cookies would be sent even with
// requests that other pages start. Only a script in this page could read the storage, and the page's policy allows no
// foreign ones.)
//
// A refresh token is single-use, so only one tab at a time exchanges it, and the next tab must see what that one has
// stored. With localStorage it may not: the lock can reach a tab before the change does.

import { Problem, send } from "./http.js";
import { createStore, del, get, set } from "./vendor/idb-keyval.js";

const STORE = createStore("promptwire", "login");
const KEY = "login";
const CHANNEL = "promptwire.login";
const LOCK = "promptwire.refresh";
const MAX_TURN = 1_000; // milliseconds

export class Session {
  #stored = null; // { username, access, refresh }
  #refreshing = null;
  #otherTabs = new BroadcastChannel(CHANNEL);

  /**
   * `onExpired(username)` is called when the user must enter the password again, and `onChange()` when another tab has
   * logged in or out.
   */
  constructor(onExpired, onChange) {
    Object.assign(this, { onExpired, onChange });
    this.#otherTabs.addEventListener("message", () => this.#follow());
    // The browser may show a page again as it was, after "Back". It has missed these messages then.
    addEventListener("pageshow", ({ persisted }) => persisted && this.#follow());
  }

  get username() {
    return this.#stored?.username ?? null;
  }

  /** Resumes the login of this browser. Returns whether there is one. */
  async resume() {
    this.#stored = await read();
    return this.#stored !== null;
  }

  async register(username, password) {
    await send("POST", "auth/register/", { body: { username, password } });
  }

  async logIn(username, password) {
    const { body } = await send("POST", "login/", { body: { username, password } });
    await this.#store({ username, ...body });
  }

  /** Takes over the tokens of a login that was started elsewhere. */
  async start(username, pair) {
    await this.#store({ username, ...pair });
  }

  /** Logs out in all tabs. */
  async logOut() {
    const refresh = this.#stored?.refresh;
    await this.#store(null);
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
  async #follow() {
    let known, newest;
    do {
      known = this.#stored;
      newest = await read();
    } while (this.#stored !== known); // this tab has stored something meanwhile
    this.#stored = newest;
    if (newest?.username !== known?.username) this.onChange();
  }

  async #exchange() {
    const used = this.#stored;
    if (!used) throw new Problem(401, { detail: "Log in again." }, null);
    const newest = await read();
    if (this.#stored !== used) return; // another tab was faster, or the user has logged out, or in again
    // Another tab has logged out, or in as another user: its message follows.
    if (newest?.username !== used.username) throw new Problem(401, { detail: "Log in again." }, null);
    if (newest.refresh !== used.refresh) {
      this.#stored = newest; // another tab was faster
      return;
    }
    try {
      const { body: pair } = await send("POST", "auth/refresh/", { body: { refresh: used.refresh } });
      if (this.#stored !== used) return; // the user has logged out, or in again
      await this.#store({ username: used.username, ...pair });
    } catch (error) {
      if (error instanceof Problem && error.status === 401 && this.#stored === used) {
        // It stays stored: without it the other tabs would take this for a logout, and discard what is written there.
        this.#stored = null;
        this.onExpired(used.username);
      }
      throw error;
    }
  }

  async #store(login) {
    this.#stored = login;
    await (login ? set(KEY, login, STORE) : del(KEY, STORE));
    this.#otherTabs.postMessage(null);
  }
}

async function read() {
  return (await get(KEY, STORE)) ?? null;
}

/** Runs a function while no other tab does. */
async function locked(run) {
  if (navigator.locks) return navigator.locks.request(LOCK, run);
  // Pages that are served over plain HTTP from another machine have no locks. The same token expires in all tabs at once,
  // so each waits for some time, in which another one may have stored the next.
  await new Promise((resolve) => setTimeout(resolve, Math.random() * MAX_TURN));
  return run();
}
