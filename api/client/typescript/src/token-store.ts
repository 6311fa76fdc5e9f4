/** Storage of a login. */

/** A user's name, an access token for requests, and a single-use refresh token for the next pair of tokens. */
export interface Login {
  username: string;
  access: string;
  refresh: string;
}

/** Stores one login. */
export interface TokenStore {
  read(): Login | null | Promise<Login | null>;
  write(login: Login | null): void | Promise<void>;
  /** Runs `change` while nobody else does, so that no refresh token is used twice. */
  locked<T>(change: () => Promise<T>): Promise<T>;
}

/** Stores a login in memory. */
export class MemoryTokenStore implements TokenStore {
  #login: Login | null = null;
  #last: Promise<unknown> = Promise.resolve();

  read(): Login | null {
    return this.#login;
  }

  write(login: Login | null): void {
    this.#login = login;
  }

  locked<T>(change: () => Promise<T>): Promise<T> {
    const result = this.#last.then(change);
    this.#last = result.catch(() => {});
    return result;
  }
}
