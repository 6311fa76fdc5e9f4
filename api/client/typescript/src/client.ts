/** The client: a method for each call of the API that concerns prompts. */

import { sleep } from "./abort.js";
import { ProblemError } from "./errors.js";
import { HttpClient, type SendOptions, anyJson, jsonObject } from "./http.js";
import { filterQuery, pages } from "./pages.js";
import {
  type Priority,
  type Prompt,
  type PromptFilter,
  type RequestOptions,
  type RoomEvent,
  type SearchMode,
  type SimilarPrompt,
  type Status,
  type StreamEvent,
  type User,
} from "./resources.js";
import { type ListenOptions, Room } from "./room.js";
import { Session } from "./session.js";
import { type WebSocketConstructor } from "./socket.js";
import { TextStreams } from "./text-stream.js";
import { MemoryTokenStore, type TokenStore } from "./token-store.js";

const LONG_POLL_SECONDS = 60;
const MIN_POLL_INTERVAL_MS = 1_000;
const MAX_PAGE_SIZE = 100;

export interface ClientOptions {
  /** An API key (`pw_…`), with which no login is needed. It wins over a stored login. */
  apiKey?: string | undefined;
  /** Stores the login; in memory by default. */
  tokenStore?: TokenStore | undefined;
  /** How long a call keeps trying: 90 s by default. */
  timeoutMs?: number | undefined;
  /** How often it retries: 6 by default. A retry at a time that the server named does not count. */
  retries?: number | undefined;
  /** A stream or a socket that is silent for this long is connected again: 45 s by default. */
  silenceMs?: number | undefined;
  /** What sends requests, instead of the global `fetch`. */
  fetch?: typeof globalThis.fetch | undefined;
  /** What opens sockets, instead of the global `WebSocket`, which Node has from version 22 on. */
  WebSocket?: WebSocketConstructor | undefined;
}

/** Aborting the signal rejects the call with the signal's reason. */
export interface CallOptions {
  signal?: AbortSignal | undefined;
}

export interface SubmitOptions extends RequestOptions, CallOptions {
  /** Whether to wait until the prompt has finished. */
  wait?: boolean | undefined;
  /** How many of the user's earlier exchanges the model receives as context. */
  history?: number | undefined;
  /** True: the answer may be that of an earlier, nearly identical prompt. False: it must not. */
  cache?: boolean | undefined;
  /** The idempotency key: the same key and prompt within 24 hours create one prompt. Random by default. */
  key?: string | undefined;
  /** Whether rooms receive an event when the prompt has finished, also without `all`. True by default. */
  websocket?: boolean | undefined;
  /** "low" comes after all other prompts, but gets at least a tenth of the work. */
  priority?: Priority | undefined;
}

export interface ListOptions extends PromptFilter, CallOptions {
  status?: Status | undefined;
  /** How many prompts at most; all by default. */
  limit?: number | undefined;
}

export interface SimilarOptions extends PromptFilter, CallOptions {
  /** "vector" compares meanings; "text" finds words, such as names and error codes; "hybrid" does both. */
  mode?: SearchMode | undefined;
  /** At most 50; 5 by default. */
  limit?: number | undefined;
  /** The largest `similarity_score`; only of vectors. */
  max_score?: number | undefined;
}

export interface RequestInitOptions extends CallOptions, Pick<SendOptions, "headers" | "query" | "body"> {
  /** Whether it may be sent twice. False by default for POST and PATCH. */
  idempotent?: boolean | undefined;
}

/**
 * A user of a Promptwire server.
 *
 * Connection errors, 429 and 5xx are retried where that is safe. Methods throw
 *
 * - NotLoggedInError: the user is not logged in, the login has ended, or the API key is not valid;
 * - ProblemError: the server answered with an error;
 * - UnreachableError: the server could not be reached until the retries ran out.
 */
export class Client {
  readonly url: string;
  #http: HttpClient;
  #session: Session;
  #streams: TextStreams;
  #room: Room;

  constructor(url: string, options: ClientOptions = {}) {
    const { timeoutMs = 90_000, retries = 6, silenceMs = 45_000 } = options;
    const { tokenStore = new MemoryTokenStore(), fetch = globalThis.fetch } = options;
    const limits = { timeoutMs, retries };
    this.url = serverUrl(url);
    this.#http = new HttpClient(this.url, limits, fetch);
    this.#session = new Session(this.#http, tokenStore, options.apiKey);
    this.#streams = new TextStreams(this.#session, limits, silenceMs);
    const WebSocket = options.WebSocket ?? globalThis.WebSocket;
    this.#room = new Room(this.url, this.#session, limits, silenceMs, WebSocket);
  }

  /** The name of the user. */
  async username({ signal }: CallOptions = {}): Promise<string> {
    return this.#session.username(signal);
  }

  /** Registers a user, where registration is open. Does not log in. */
  async register(username: string, password: string, { signal }: CallOptions = {}): Promise<User> {
    const options = { body: { username, password }, idempotent: false, signal };
    return this.#http.send("POST", "/auth/register/", options, jsonObject<User>("id"));
  }

  /** Logs in. Throws NotLoggedInError if the username or the password is wrong. */
  async login(username: string, password: string, { signal }: CallOptions = {}): Promise<void> {
    await this.#session.logIn(username, password, signal);
  }

  /** Ends the login, here and on the server. Returns its username. */
  async logout({ signal }: CallOptions = {}): Promise<string> {
    return this.#session.logOut(signal);
  }

  /** Submits a prompt. Retries never create a second prompt. */
  async submit(text: string, options: SubmitOptions = {}): Promise<Prompt> {
    const { wait = false, cache, key = randomKey(), websocket = true, signal, ...request } = options;
    const body = { prompt_text: text, websocket, ...request, ...(cache ? { cache } : {}) };
    const headers = { "Idempotency-Key": key, ...(cache === false ? { "Cache-Control": "no-cache" } : {}) };
    const prompt = await this.#prompt("POST", "/prompts/", { body, headers, signal });
    return wait ? this.wait(prompt.id, { signal }) : prompt;
  }

  /** Returns a prompt in its present state. */
  async show(promptId: number, { signal }: CallOptions = {}): Promise<Prompt> {
    return this.#prompt("GET", `/prompts/${promptId}/`, { signal });
  }

  /** Returns a prompt once it has finished, however long that takes. */
  async wait(promptId: number, { signal }: CallOptions = {}): Promise<Prompt> {
    const headers = { Prefer: `wait=${LONG_POLL_SECONDS}` };
    const options = { headers, serverWaitMs: LONG_POLL_SECONDS * 1000, signal };
    for (;;) {
      const started = performance.now();
      const prompt = await this.#prompt("GET", `/prompts/${promptId}/`, options);
      if (prompt.status !== "queued" && prompt.status !== "processing") return prompt;
      // A server that shuts down, or does not support waiting, answers at once.
      await sleep(Math.max(0, started + MIN_POLL_INTERVAL_MS - performance.now()), signal);
    }
  }

  /** Yields the user's prompts, newest first. */
  async *prompts({ status, limit = Infinity, signal, ...filter }: ListOptions = {}): AsyncGenerator<Prompt, void> {
    const query = { status, limit: Math.min(limit, MAX_PAGE_SIZE), ...filterQuery(filter) };
    let left = limit;
    for await (const page of pages<Prompt>(this.#session, "/prompts/", query, signal)) {
      yield* page.slice(0, left);
      left -= page.length;
      if (left <= 0) return;
    }
  }

  /** Returns the user's completed prompts most similar to a text, nearest first. */
  async similar(text: string, options: SimilarOptions = {}): Promise<SimilarPrompt[]> {
    const { mode, limit, max_score, signal, ...filter } = options;
    const query = { prompt: text, mode, limit, max_score, ...filterQuery(filter) };
    const found: SimilarPrompt[] = [];
    for await (const page of pages<SimilarPrompt>(this.#session, "/prompts/similar/", query, signal)) {
      found.push(...page);
    }
    return found;
  }

  /** Cancels a prompt for good. Throws ProblemError (409) if it has already finished. */
  async cancel(promptId: number, { signal }: CallOptions = {}): Promise<Prompt> {
    return this.#change(promptId, "cancel", signal);
  }

  /** Queues a failed or cancelled prompt again. Throws ProblemError (409) for any other prompt. */
  async retry(promptId: number, { signal }: CallOptions = {}): Promise<Prompt> {
    return this.#change(promptId, "retry", signal);
  }

  /** Deletes a prompt, its answer and its vector. Throws ProblemError (404) if there is none. */
  async delete(promptId: number, { signal }: CallOptions = {}): Promise<void> {
    await this.#session.request("DELETE", `/prompts/${promptId}/`, { signal }, anyJson).catch((error) => {
      if (!isRepeated(error, 404)) throw error; // else an earlier attempt has deleted it
    });
  }

  /**
   * Yields a prompt's text as it is generated: `prompt.delta` events, then the event of its end.
   *
   * The text is complete, whenever you start to follow. A delta with a higher `attempt` than the one before it restarts
   * the answer. An interrupted connection is resumed without a gap or a duplicate.
   */
  follow(promptId: number, { signal }: CallOptions = {}): AsyncGenerator<StreamEvent, void> {
    return this.#streams.follow(promptId, signal);
  }

  /**
   * Yields an event for each of the user's prompts that finishes, without end and without duplicates.
   *
   * A `reset` says that the server no longer has all events after `since`: read `prompts()`. After the first connection
   * it reconnects without a limit. Throws RefusedError if the server closes the connection for good.
   */
  listen(options: ListenOptions = {}): AsyncGenerator<RoomEvent, void> {
    return this.#room.events(options);
  }

  /** Calls what has no method here, such as `request("GET", "/usage/")`. Returns the JSON of the response, or null. */
  async request(method: string, path: string, options: RequestInitOptions = {}): Promise<unknown> {
    const idempotent = options.idempotent ?? !["POST", "PATCH"].includes(method);
    return this.#session.request(method, path, { ...options, idempotent }, anyJson);
  }

  async #change(promptId: number, action: "cancel" | "retry", signal: AbortSignal | undefined): Promise<Prompt> {
    try {
      return await this.#prompt("POST", `/prompts/${promptId}/${action}/`, { signal });
    } catch (error) {
      if (!isRepeated(error, 409)) throw error;
      return this.show(promptId, { signal }); // an earlier attempt has changed it
    }
  }

  async #prompt(method: string, path: string, options: SendOptions): Promise<Prompt> {
    return this.#session.request(method, path, options, jsonObject<Prompt>("id", "status"));
  }
}

/** The address of a server without a slash at its end. On a page it may be relative to that. */
function serverUrl(text: string): string {
  const { href, protocol, username, password } = new URL(text, globalThis.location?.href);
  if (!/^https?:$/.test(protocol) || username || password) {
    throw new TypeError("the URL of a server begins with http:// or https://, and names no user");
  }
  return href.replace(/\/+$/, "");
}

function isRepeated(error: unknown, status: number): boolean {
  return error instanceof ProblemError && error.status === status && error.repeated;
}

/** 128 random bits. `crypto.randomUUID` is missing on pages without HTTPS. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
