// The logged-in user and the tokens.
//
// The access token is only in memory. The single-use refresh token is in sessionStorage, so that a reload does not ask
// for the password again: only this tab can read it, and it is deleted when the tab is closed. (A browser sends cookies
// even with requests that other pages start, and localStorage outlives the tab.)

import { Problem, send } from "./http.js";

const STORAGE_KEY = "promptwire.login";

export class Session {
  username = null;
  #access = null;
  #refresh = null;
  #refreshing = null;
  #tabs = new BroadcastChannel("promptwire.login");

  /** `onExpired` is called when the user must enter the password again. */
  constructor(onExpired) {
    this.onExpired = onExpired;
    // A duplicated tab has the same refresh token, and using a token twice ends the login: so tabs share the new pair.
    this.#tabs.onmessage = ({ data }) => {
      if (data.used === this.#refresh) this.#store(this.username, data.pair);
    };
  }

  /** Resumes the login of this tab. Returns whether there is one; if it has ended, `onExpired` was called. */
  async resume() {
    const stored = JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "null");
    if (!stored) return false;
    this.username = stored.username;
    this.#refresh = stored.refresh;
    try {
      await this.refresh();
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return false;
      // The server is unavailable: the socket keeps trying.
    }
    return true;
  }

  async register(username, password) {
    await send("POST", "auth/register/", { body: { username, password } });
  }

  async logIn(username, password) {
    const { body } = await send("POST", "login/", { body: { username, password } });
    this.#store(username, body);
  }

  /** Takes over the tokens of a login that was started elsewhere. */
  start(username, pair) {
    this.#store(username, pair);
  }

  async logOut() {
    const refresh = this.#refresh;
    this.#clear();
    this.username = null;
    // If this fails, the login expires on the server by itself.
    if (refresh) await send("POST", "auth/logout/", { body: { refresh } }).catch(() => {});
  }

  /** An access token that was valid when it was last used. */
  async token() {
    if (!this.#access) await this.refresh();
    return this.#access;
  }

  /** Exchanges the refresh token for the next pair. Concurrent callers share one exchange. */
  refresh() {
    this.#refreshing ??= this.#exchange().finally(() => (this.#refreshing = null));
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
      if (this.#access === token) await this.refresh();
      if (this.username !== username) throw error;
      return send(method, path, { ...options, token: this.#access });
    }
  }

  async #exchange() {
    const used = this.#refresh;
    try {
      if (!used) throw new Problem(401, { detail: "Log in again." }, null);
      const { body: pair } = await send("POST", "auth/refresh/", { body: { refresh: used } });
      if (this.#refresh !== used) return; // the user has logged out, or in again
      this.#store(this.username, pair);
      this.#tabs.postMessage({ used, pair });
    } catch (error) {
      if (error instanceof Problem && error.status === 401 && this.#refresh === used) {
        this.#clear();
        this.onExpired();
      }
      throw error;
    }
  }

  #store(username, { access, refresh }) {
    this.username = username;
    this.#access = access;
    this.#refresh = refresh;
    sessionStorage.setItem(STORAGE_KEY, JSON.stringify({ username, refresh }));
  }

  #clear() {
    this.#access = null;
    this.#refresh = null;
    sessionStorage.removeItem(STORAGE_KEY);
  }
}
