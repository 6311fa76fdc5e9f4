/** Authentication: requests carry an API key, or the access token of a login, which is refreshed when it expires. */

import { abortable } from "./abort.js";
import { NotLoggedInError, ProblemError } from "./errors.js";
import { type HttpClient, type Read, type SendOptions, anyJson, jsonObject } from "./http.js";
import { type Login, type TokenStore } from "./token-store.js";

type Tokens = Pick<Login, "access" | "refresh">;

/**
 * A user's session with a server, by an API key or, without one, by the stored login. Methods that need one of them
 * throw NotLoggedInError if the key is not valid or there is no login.
 */
export class Session {
  #http: HttpClient;
  #store: TokenStore;
  #apiKey: string | undefined;
  #keyUsername: string | undefined;

  constructor(http: HttpClient, store: TokenStore, apiKey: string | undefined) {
    if (apiKey !== undefined && !/^pw_[0-9A-Za-z]+$/.test(apiKey)) {
      throw new TypeError("an API key is pw_ and then letters and digits");
    }
    this.#http = http;
    this.#store = store;
    this.#apiKey = apiKey;
  }

  /** Whether there may be another token when this one has expired. */
  get isRenewable(): boolean {
    return this.#apiKey === undefined;
  }

  /** The name of the user. With an API key the server is asked for it once. */
  async username(signal?: AbortSignal): Promise<string> {
    if (this.#apiKey === undefined) return (await this.#login()).username;
    const account = jsonObject<{ username: string }>("username");
    this.#keyUsername ??= (await this.request("GET", "/account/", { signal }, account)).username;
    return this.#keyUsername;
  }

  /** The API key, or the access token of the login. */
  async token(): Promise<string> {
    return this.#apiKey ?? (await this.#login()).access;
  }

  async logIn(username: string, password: string, signal?: AbortSignal): Promise<void> {
    const options = { body: { username, password }, signal };
    const tokens = await this.#http.send("POST", "/login/", options, readTokens).catch(throwLoginError);
    await this.#store.locked(async () => this.#store.write({ username, ...tokens }));
  }

  /** Ends the login, here and on the server. Returns its username. */
  async logOut(signal?: AbortSignal): Promise<string> {
    return this.#store.locked(async () => {
      const { username, refresh } = await this.#login();
      await this.#http.send("POST", "/auth/logout/", { body: { refresh }, signal }, anyJson).catch((error) => {
        if (!isUnauthorized(error)) throw error; // else the login has already ended
      });
      await this.#store.write(null);
      return username;
    });
  }

  /** Sends a request with the token. Options and errors are those of `HttpClient.send`. */
  async request<T>(method: string, path: string, options: SendOptions, read: Read<T>): Promise<T> {
    let token = await this.token();
    for (let isLast = !this.isRenewable; ; isLast = true) {
      const headers = { ...options.headers, Authorization: `Bearer ${token}` };
      try {
        return await this.#http.send(method, path, { ...options, headers }, read);
      } catch (error) {
        if (isLast || !isUnauthorized(error)) throwLoginError(error);
      }
      token = await this.renew(token, options.signal);
    }
  }

  /** Exchanges the login, whose access token is no longer valid, for the next one. Returns its access token. */
  async renew(expired: string, signal?: AbortSignal): Promise<string> {
    // A call that is aborted leaves the exchange to the others that wait for it.
    return abortable(
      this.#store.locked(() => this.#renew(expired)),
      signal,
    );
  }

  async #renew(expired: string): Promise<string> {
    const login = await this.#login();
    if (login.access !== expired) return login.access; // another call has refreshed it
    try {
      // It is retried: if the response was lost, so is the login, unless the server had not received the request.
      const tokens = await this.#http.send("POST", "/auth/refresh/", { body: { refresh: login.refresh } }, readTokens);
      await this.#store.write({ username: login.username, ...tokens });
      return tokens.access;
    } catch (error) {
      if (isUnauthorized(error)) await this.#store.write(null);
      return throwLoginError(error);
    }
  }

  async #login(): Promise<Login> {
    const login = await this.#store.read();
    if (login === null) throw new NotLoggedInError();
    return login;
  }
}

async function readTokens(response: Response): Promise<Tokens> {
  const { access, refresh } = await jsonObject<Tokens>("access", "refresh")(response);
  return { access, refresh };
}

function isUnauthorized(error: unknown): error is ProblemError {
  return error instanceof ProblemError && error.status === 401;
}

function throwLoginError(error: unknown): never {
  throw isUnauthorized(error) ? new NotLoggedInError(error.detail) : error;
}
