/** HTTP requests, retried where that is safe. */

import { Timeout } from "./abort.js";
import { ClientError, ProblemError, UnreachableError, isObject } from "./errors.js";
import { Retries, type RetryLimits } from "./retries.js";

const RESPONSE_MS = 30_000;
const KEY_IN_USE = "urn:promptwire:problem:idempotency-key-in-use";
/** The server refused the request before it did anything. */
const BUSY_STATUSES = [429, 503];
/** The server may have carried out the request. */
const BROKEN_STATUSES = [500, 502, 504];

/** The parameters of a URL. Those that are undefined are left out. */
export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

export interface SendOptions {
  headers?: Readonly<Record<string, string>>;
  query?: Query;
  /** Is sent as JSON. */
  body?: unknown;
  /**
   * Whether sending it twice has the same effect as sending it once. If not, it is retried only where the server
   * cannot have carried it out. True by default.
   */
  idempotent?: boolean;
  /** The time that the server may wait before it answers. */
  serverWaitMs?: number;
  signal?: AbortSignal | undefined;
}

/** Reads a successful response. What it throws, unless it is a `ClientError`, means that the connection broke. */
export type Read<T> = (response: Response) => Promise<T>;

/** Sends requests to one server. */
export class HttpClient {
  #limits: RetryLimits;
  #fetch: typeof fetch;

  constructor(
    readonly url: string,
    limits: RetryLimits,
    fetching: typeof fetch,
  ) {
    this.#limits = limits;
    this.#fetch = fetching;
  }

  /**
   * Sends a request, and returns what `read` makes of the response.
   *
   * @throws ProblemError: the server answered with an error that is permanent, or that lasted too long.
   * @throws UnreachableError: the server did not answer.
   */
  async send<T>(method: string, path: string, options: SendOptions, read: Read<T>): Promise<T> {
    const { idempotent = true, serverWaitMs = 0, signal } = options;
    const [address, request] = [this.url + path + queryString(options.query), requestOf(method, options)];
    const retries = new Retries(this.#limits, serverWaitMs);
    let repeated = false;
    for (;;) {
      let failure: ClientError;
      try {
        const left = Math.max(100, retries.msLeft - serverWaitMs);
        return await this.#attempt(address, request, signal, serverWaitMs + Math.min(RESPONSE_MS, left), repeated, read);
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof ProblemError) {
          if (!canRetry(error, idempotent)) throw error;
          repeated ||= BROKEN_STATUSES.includes(error.status);
          failure = error;
        } else {
          if (error instanceof ClientError) throw error;
          failure = new UnreachableError(`${this.url} cannot be reached (${causeOf(error)}).`, { cause: error });
          if (!idempotent) throw failure; // fetch does not tell whether the server has received it
          repeated = true;
        }
      }
      await retries.wait(failure, signal);
    }
  }

  async #attempt<T>(
    address: string,
    request: RequestInit,
    signal: AbortSignal | undefined,
    timeoutMs: number,
    repeated: boolean,
    read: Read<T>,
  ): Promise<T> {
    const fetch = this.#fetch; // browsers refuse to run it as a method of another object
    const timeout = new Timeout(signal);
    timeout.start(timeoutMs);
    try {
      const response = await fetch(address, { ...request, signal: timeout.signal });
      if (!response.ok) throw new ProblemError(response, await response.text(), repeated);
      return await read(response);
    } finally {
      timeout.stop();
    }
  }
}

/** Throws a TypeError for what cannot be sent, which no retry would change. */
function requestOf(method: string, { headers, body }: SendOptions): RequestInit {
  const accept = { Accept: "application/json, application/problem+json" };
  const type = body === undefined ? {} : { "Content-Type": "application/json" };
  const content = body === undefined ? null : JSON.stringify(body);
  return { method, headers: new Headers({ ...accept, ...type, ...headers }), body: content };
}

function queryString(query: Query = {}): string {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined) pairs.set(name, String(value));
  return String(pairs) && `?${pairs}`;
}

function canRetry(problem: ProblemError, idempotent: boolean): boolean {
  if (BUSY_STATUSES.includes(problem.status) || problem.type === KEY_IN_USE) return true;
  return BROKEN_STATUSES.includes(problem.status) && idempotent;
}

/** Why a connection broke. Node has it in `cause`. */
export function causeOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause: Error & { code?: string } = error.cause instanceof Error ? error.cause : error;
  return cause.message || (cause.code ?? cause.name);
}

/** Reads a JSON object that has these members. */
export function jsonObject<T>(...required: readonly string[]): Read<T> {
  return async (response) => {
    const value = await parse(response);
    if (!hasMembers(value, required)) throw notPromptwire(response);
    return value as T;
  };
}

/** Reads a list of JSON objects that have these members. */
export function jsonList<T>(...required: readonly string[]): Read<T[]> {
  return async (response) => {
    const value = await parse(response);
    if (!Array.isArray(value) || !value.every((each) => hasMembers(each, required))) throw notPromptwire(response);
    return value as T[];
  };
}

/** Reads a response that may be empty: then it is null. */
export async function anyJson(response: Response): Promise<unknown> {
  return response.status === 204 ? null : parse(response);
}

/** The error for a response that did not come from Promptwire. */
export function notPromptwire(response: Response): UnreachableError {
  return new UnreachableError(`The server at ${response.url} is not Promptwire's API.`);
}

async function parse(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch (error) {
    throw error instanceof SyntaxError ? notPromptwire(response) : error;
  }
}

function hasMembers(value: unknown, required: readonly string[]): boolean {
  return isObject(value) && required.every((name) => name in value);
}
