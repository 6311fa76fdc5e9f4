// Who is logged in, and the tokens.
//
// The access token is kept in memory only. The refresh token is in sessionStorage, so that a reload need not ask for the
// password again: it is this tab's alone, is gone when the tab is closed, and is good for one use. (A cookie would be
// sent by itself, also with requests that other pages cause; localStorage would outlive the tab.)

import { Problem, send } from "./http.js";

const KEY = "promptwire.login";

export class Session {
  username = null;
  #access = null;
  #refresh = null;
  #renewing = null;
  #tabs = new BroadcastChannel("promptwire.login");

  /** `onExpired` is called when only a password helps. */
  constructor(onExpired) {
    this.onExpired = onExpired;
    // A duplicated tab has the same refresh token, and whoever uses a spent one ends the login: so they tell each other.
    this.#tabs.onmessage = ({ data }) => {
      if (data.spent === this.#refresh) this.#keep(this.username, data.pair);
    };
  }

  /** Goes on with this tab's login. Returns whether there is one; where it has ended, `onExpired` was called. */
  async resume() {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    if (!kept) return false;
    this.username = kept.username;
    this.#refresh = kept.refresh;
    try {
      await this.renew();
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return false;
      // The server is away: the socket keeps trying.
    }
    return true;
  }

  async register(username, password) {
    await send("POST", "/auth/register/", { body: { username, password } });
  }

  async logIn(username, password) {
    const { body } = await send("POST", "/login/", { body: { username, password } });
    this.#keep(username, body);
  }

  async logOut() {
    const refresh = this.#refresh;
    this.#forget();
    this.username = null;
    // Here it is over in any case; there it ends by itself some time.
    if (refresh) await send("POST", "/auth/logout/", { body: { refresh } }).catch(() => {});
  }

  /** An access token that was good when last heard of. */
  async token() {
    if (!this.#access) await this.renew();
    return this.#access;
  }

  /** Exchanges the refresh token for the next pair; callers at the same time share one exchange. */
  renew() {
    this.#renewing ??= this.#exchange().finally(() => (this.#renewing = null));
    return this.#renewing;
  }

  /** Sends a request as this user; once more, if the access token has expired. */
  async send(method, path, options = {}) {
    const { username } = this;
    const token = await this.token();
    try {
      return await send(method, path, { ...options, token });
    } catch (error) {
      if (!(error instanceof Problem && error.status === 401)) throw error;
      if (this.#access === token) await this.renew();
      if (this.username !== username) throw error;
      return send(method, path, { ...options, token: this.#access });
    }
  }

  async #exchange() {
    const spent = this.#refresh;
    try {
      if (!spent) throw new Problem(401, { detail: "Log in again." }, null);
      const { body: pair } = await send("POST", "/auth/refresh/", { body: { refresh: spent } });
      if (this.#refresh !== spent) return; // logged out, or in again, meanwhile
      this.#keep(this.username, pair);
      this.#tabs.postMessage({ spent, pair });
    } catch (error) {
      if (error instanceof Problem && error.status === 401 && this.#refresh === spent) {
        this.#forget();
        this.onExpired();
      }
      throw error;
    }
  }

  #keep(username, { access, refresh }) {
    this.username = username;
    this.#access = access;
    this.#refresh = refresh;
    sessionStorage.setItem(KEY, JSON.stringify({ username, refresh }));
  }

  #forget() {
    this.#access = null;
    this.#refresh = null;
    sessionStorage.removeItem(KEY);
  }
}
