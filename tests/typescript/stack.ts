/** What the tests know of the stack, and a few assertions that browsers have, too. */

import { Client, type ClientOptions, type RoomEvent } from "promptwire";

export interface Stack {
  /** The API. */
  url: string;
  /** The server of the test, which does what a client cannot. */
  control: string;
}

export type Case = (stack: Stack) => Promise<void>;

export const PASSWORD = "correct horse battery";

/** A client that has just registered and logged in. */
export async function newUser({ url }: Stack, options?: ClientOptions): Promise<Client> {
  const client = new Client(url, options);
  await client.register(newName(), PASSWORD).then(({ username }) => client.login(username, PASSWORD));
  return client;
}

export function newName(): string {
  return `user-${Math.random().toString(36).slice(2)}`;
}

/** Has the server of the test do something. */
export async function command({ control }: Stack, path: string, body = ""): Promise<string> {
  return (await fetch(`${control}/${path}`, { method: "POST", body })).text();
}

/** An answer that the test writes: the generator reads it from a file, until a line is complete. */
export class Answer {
  #stack: Stack;
  #file = newName();

  constructor(stack: Stack) {
    this.#stack = stack;
  }

  /** The prompt that is answered with it. */
  async prompt(generator = "copy"): Promise<string> {
    return `${generator} ${await command(this.#stack, `path/${this.#file}`)}`;
  }

  async append(text: string): Promise<void> {
    await command(this.#stack, `append/${this.#file}`, text);
  }
}

/** A promise that is fulfilled when `signal` is called. */
export function signalled<T>(): { promise: Promise<T>; signal: (value: T) => void } {
  let signal: (value: T) => void = () => {};
  const promise = new Promise<T>((resolve) => (signal = resolve));
  return { promise, signal };
}

export function check(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

export function equal(actual: unknown, expected: unknown): void {
  const [found, wanted] = [JSON.stringify(actual), JSON.stringify(expected)];
  check(found === wanted, `${found} is not ${wanted}`);
}

/** Returns the error with which the promise rejects. */
export async function rejects<T>(kind: new (...args: any[]) => T, promise: Promise<unknown>): Promise<T> {
  const error: unknown = await promise.then(
    (value) => new Error(`it did not reject, but returned ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
  if (error instanceof kind) return error;
  throw error;
}

/** The first `count` items. */
export async function take<T>(count: number, items: AsyncIterable<T>): Promise<T[]> {
  const taken: T[] = [];
  for await (const item of items) if (taken.push(item) === count) break;
  return taken;
}

/** A `fetch` that passes each request to `answer`, with a function that sends it. */
export function fetching(
  answer: (path: string, send: () => Promise<Response>, init: RequestInit) => Promise<Response>,
): typeof fetch {
  return (url, init = {}) => answer(new URL(String(url)).pathname, () => fetch(url, init), init);
}

/** What an event is about; a reset is about nothing. */
export function idOf(event: RoomEvent): number | string | undefined {
  return event.type === "reset" ? undefined : event.id;
}
