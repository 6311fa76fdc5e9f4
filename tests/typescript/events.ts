/** Text streams and rooms. */

import {
  Client,
  ClientError,
  MemoryTokenStore,
  type RoomEvent,
  type StreamEvent,
  type TokenStore,
  UnreachableError,
  type WebSocketConstructor,
  type WebSocketLike,
} from "promptwire";

import { Answer, type Case, check, equal, fetching, idOf, newUser, rejects, signalled, take } from "./stack.js";

const cases: Record<string, Case> = {
  async "a prompt's text is followed from its beginning to its end"(stack) {
    const client = await newUser(stack);
    const answer = new Answer(stack);
    await answer.append("Ebb ü€😀, ");
    const { id } = await client.submit(await answer.prompt());
    const events: StreamEvent[] = [];
    for await (const event of client.follow(id)) {
      if (events.push(event) === 1) await answer.append("and flow.\n");
    }
    const { text, ended } = assemble(events);
    equal([text, ended.type, ended.id], ["Ebb ü€😀, and flow.\ndone", "prompt.completed", id]);
    equal(assemble(await take(Infinity, client.follow(id))).text, text); // also afterwards
  },

  async "a text that is interrupted is resumed where it was"(stack) {
    const from: (string | null)[] = [];
    const signals: AbortSignal[] = [];
    const breaking = fetching(async (path, send, { headers, signal }) => {
      const response = await send();
      if (!path.endsWith("/stream/")) return response;
      signals.push(signal!);
      from.push(new Headers(headers).get("Last-Event-ID"));
      return from.length > 2 ? response : new Response(firstEvent(response), response);
    });
    const client = await newUser(stack, { fetch: breaking });
    const answer = new Answer(stack);
    await answer.append("one ");
    const { id } = await client.submit(await answer.prompt());
    const events: StreamEvent[] = [];
    for await (const event of client.follow(id)) {
      if (events.push(event) <= 2) await answer.append(["two ", "three\n"][events.length - 1]!);
    }
    equal(assemble(events).text, "one two three\ndone");
    equal(from, [null, "1-4", "1-8"]);
    check(
      signals.every(({ aborted }) => aborted),
      "no connection is left open",
    );
  },

  async "a stream may be cut anywhere"({ url }) {
    const delta = { type: "prompt.delta", id: 1, attempt: 1, offset: 0, text: "ü€😀 and\r\nmore" };
    const ended = { type: "prompt.completed", id: 1, prompt_text: "", response_text: delta.text };
    const event = (type: string, data: object): string => `event: ${type}\r\ndata: ${JSON.stringify(data)}\r\n\r\n`;
    const text = `retry: 1\n\n: comment\rid:1-2\r${event(delta.type, delta)}:\n\n${event(ended.type, ended)}`;
    const bytes = Array.from(new TextEncoder().encode(text), (byte) => Uint8Array.of(byte));
    const cut = fetching(async () => {
      const body = new ReadableStream<Uint8Array>({
        start(controller) {
          for (const byte of bytes) controller.enqueue(byte);
          controller.close();
        },
      });
      return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
    });
    const client = new Client(url, { apiKey: "pw_any", fetch: cut });
    equal(await take(Infinity, client.follow(1)), [delta, ended]);
  },

  async "an answer that begins again has a higher attempt"(stack) {
    const client = await newUser(stack);
    const answer = new Answer(stack);
    const { id } = await client.submit(await answer.prompt("break-once"));
    const events: StreamEvent[] = [];
    for await (const event of client.follow(id)) {
      if (events.push(event) === 1) await answer.append("");
    }
    // A busy machine may lose another attempt, before it has sent anything.
    const attempts = [...new Set(events.flatMap((event) => (event.type === "prompt.delta" ? [event.attempt] : [])))];
    equal(attempts, [...attempts].sort((a, b) => a - b));
    equal(attempts.length > 1, true);
    const { text, ended } = assemble(events);
    equal([text, ended.response_text], ["half\nwhole done", "half\nwhole done"]);
  },

  async "a room has what finished since, then what finishes"(stack) {
    const client = await newUser(stack);
    const first = await client.submit("First", { wait: true });
    const hidden = await client.submit("Hidden", { websocket: false, wait: true });
    const missed = await take(1, client.listen({ since: 0 }));
    equal(
      missed.map((event) => [event.type, idOf(event)]),
      [["prompt.completed", first.id]],
    );
    await client.delete(hidden.id);
    const connected = signalled<number>();
    const listening = take(1, client.listen({ onConnected: connected.signal }));
    equal(await connected.promise, 3);
    const last = await client.submit("refuse this");
    const [live] = await listening;
    equal([live!.type, idOf(live!), live!.seq], ["prompt.failed", last.id, 4]);
    const all = await take(3, client.listen({ since: 0, all: true }));
    equal(
      all.map((event) => [event.type, idOf(event), event.seq]),
      [
        ["prompt.completed", first.id, 1],
        ["prompt.deleted", hidden.id, 3],
        ["prompt.failed", last.id, 4],
      ],
    );
  },

  async "a room that the server no longer has is reset"(stack) {
    const client = await newUser(stack);
    const { id } = await client.submit("First", { wait: true });
    const [reset] = await take(1, client.listen({ since: 1_000 }));
    equal(reset, { type: "reset", seq: 1 });
    equal((await take(1, client.listen({ since: 0 }))).map(idOf), [id]);
  },

  async "a room is joined again after each disconnection, with a new login"(stack) {
    const sockets: WebSocket[] = [];
    class Recorded extends WebSocket {
      constructor(url: string, protocols: string[]) {
        super(url, sockets.length === 0 ? ["bearer", "expired"] : protocols);
        sockets.push(this);
      }
    }
    const client = await newUser(stack, { WebSocket: Recorded });
    const ids = [(await client.submit("Number 0", { wait: true })).id];
    const events: RoomEvent[] = [];
    for await (const event of client.listen({ since: 0 })) {
      if (events.push(event) === 4) break;
      ids.push((await client.submit(`Number ${events.length}`, { wait: true })).id);
      sockets.at(-1)!.close(); // as a proxy does
      ids.push((await client.submit(`Number ${events.length}`, { wait: true })).id);
    }
    equal(
      events.map(({ seq }) => seq),
      [1, 2, 3, 4],
    );
    equal(events.map(idOf), ids.slice(0, 4));
    check(sockets.length >= 3, `${sockets.length} sockets`);
  },

  async "a reader that is slow misses nothing and gets nothing twice, and holds a thousand messages"({ url }) {
    const { sockets, WebSocket } = fake((since, { send }) => {
      send({ type: "connected", seq: 2_500 });
      for (let seq = since ?? 0; seq <= 2_500; seq += 1) send({ type: "prompt.completed", seq, id: seq });
    });
    const client = new Client(url, { tokenStore: loggedIn(), WebSocket });
    const events = await take(2_500, client.listen({ since: 0 }));
    equal(
      events.map(({ seq }) => seq),
      Array.from({ length: 2_500 }, (_, index) => index + 1),
    );
    equal([sockets.length, sockets.every(({ isClosed }) => isClosed)], [3, true]);

    const controller = new AbortController();
    const received: RoomEvent[] = [];
    const listening = (async () => {
      for await (const event of client.listen({ since: 0, signal: controller.signal })) {
        received.push(event);
        controller.abort(new Error("enough"));
      }
    })();
    equal([(await rejects(Error, listening)).message, received.length], ["enough", 1]);
  },

  async "a room that was joined without a number is joined again from where it was"({ url }) {
    const numbers: (number | undefined)[] = [];
    const { WebSocket } = fake((since, { send, close }) => {
      send({ type: "connected", seq: 41 });
      if (numbers.push(since) === 1) close(1012);
      else send({ type: "prompt.completed", seq: 42, id: 7 });
    });
    const [event] = await take(1, new Client(url, { tokenStore: loggedIn(), WebSocket }).listen());
    equal([event!.seq, ...numbers], [42, undefined, 41]);
  },

  async "a room is joined again when a place in it is free"({ url }) {
    let attempts = 0;
    const { WebSocket } = fake((_, { send, close }) => {
      attempts += 1;
      send(attempts === 2 ? { error: "You have 100 sockets." } : { type: "connected", seq: 0 });
      if (attempts < 3) close(attempts === 2 ? 4429 : 1012);
      else send({ type: "prompt.completed", seq: 1, id: 7 });
    });
    equal((await take(1, new Client(url, { tokenStore: loggedIn(), WebSocket }).listen())).map(idOf), [7]);
    const full = fake((_, { send, close }) => {
      send({ error: "You have 100 sockets." });
      close(4429);
    });
    const refused = new Client(url, { tokenStore: loggedIn(), WebSocket: full.WebSocket, retries: 1 });
    const error = await rejects(UnreachableError, take(1, refused.listen()));
    check(error.message.includes("You have 100 sockets."), error.message);
    equal(full.sockets.length, 2);
  },

  async "a room is joined again when the next login has expired, too, before the server could be reached"({ url }) {
    const codes = [4401, 1006, 4401];
    const { sockets, WebSocket } = fake((_, { send, close }) => {
      const code = codes.shift();
      if (code !== undefined) close(code);
      else for (const seq of [0, 1]) send({ type: seq === 0 ? "connected" : "prompt.completed", seq, id: 7 });
    });
    let refreshed = 0;
    const answer = async (): Promise<Response> => Response.json({ access: `next ${++refreshed}`, refresh: "next" });
    const client = new Client(url, { tokenStore: loggedIn(), WebSocket, fetch: fetching(answer) });
    equal((await take(1, client.listen({ since: 0 }))).map(idOf), [7]);
    equal([refreshed, sockets.length], [2, 4]);
  },

  async "a room may be silent without a limit"({ url }) {
    let pings = 0;
    const { WebSocket } = fake((_, { send }) => {
      send({ type: "connected", seq: 0 });
      setTimeout(() => send({ type: "prompt.completed", seq: 1, id: 7 }), 100);
    });
    class Counting extends WebSocket {
      override send(): void {
        pings += 1;
      }
    }
    const client = new Client(url, { tokenStore: loggedIn(), WebSocket: Counting, silenceMs: Infinity });
    equal([(await take(1, client.listen())).map(idOf), pings], [[7], 0]);
  },

  async "a socket or a stream that is silent is given up"({ control }) {
    const options = { apiKey: "pw_any", silenceMs: 200, retries: 1 };
    const silent = new Client(`${control}/silent`, options);
    await rejects(UnreachableError, take(1, silent.listen()));
    const { message } = await rejects(UnreachableError, take(1, silent.follow(1)));
    check(message.includes("nothing was received for 0.2 s"), message);
  },

  async "without a WebSocket everything but the room works"(stack) {
    const { WebSocket } = globalThis;
    Object.assign(globalThis, { WebSocket: undefined });
    const creating = newUser(stack); // makes the client at once
    Object.assign(globalThis, { WebSocket });
    const client = await creating;
    equal((await client.submit("First", { wait: true })).status, "completed");
    const error = await rejects(ClientError, take(1, client.listen()));
    check(error.message.includes("ws"), error.message);
  },
};
export default cases;

type Ended = Exclude<StreamEvent, { type: "prompt.delta" | "prompt.deleted" }>;

/** The text of the last attempt, whose parts must follow each other, and the event of the end. */
export function assemble(events: StreamEvent[]): { text: string; ended: Ended } {
  let text = "";
  let attempt = 0;
  for (const event of events.slice(0, -1)) {
    check(event.type === "prompt.delta", `${event.type} is the last event`);
    if (event.attempt > attempt) [text, attempt] = ["", event.attempt];
    equal([event.attempt, event.offset], [attempt, new TextEncoder().encode(text).length]);
    text += event.text;
  }
  const ended = events.at(-1);
  check(ended !== undefined && "prompt_text" in ended, "the end of the prompt");
  return { text, ended };
}

/** The beginning of an event stream, which breaks after the first event with data. */
function firstEvent(response: Response): ReadableStream<Uint8Array> {
  let received = "";
  const breaking = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      received += new TextDecoder().decode(chunk); // an answer of ASCII
      const end = received.indexOf("\n\n", received.indexOf("data:"));
      const isOver = received.includes("data:") && end > 0;
      controller.enqueue(isOver ? chunk.slice(0, chunk.length - (received.length - end - 9)) : chunk);
      if (isOver) controller.error(new TypeError("the connection broke"));
    },
  });
  return response.body!.pipeThrough(breaking);
}

interface FakeSocket {
  send(event: object): void;
  close(code: number): void;
  isClosed: boolean;
}

/** A WebSocket whose server is this function, which gets the number in the address. And the sockets that were made. */
function fake(serve: (since: number | undefined, socket: FakeSocket) => void): {
  sockets: FakeSocket[];
  WebSocket: WebSocketConstructor;
} {
  const sockets: FakeSocket[] = [];
  class Fake implements WebSocketLike {
    readyState = 1;
    onmessage: ((event: { data: string }) => void) | null = null;
    onclose: ((event: { code: number }) => void) | null = null;
    onerror = null;
    #server: FakeSocket = {
      send: (event) => this.onmessage?.({ data: JSON.stringify(event) }),
      close: (code) => this.onclose?.({ code }),
      isClosed: false,
    };

    constructor(address: string) {
      sockets.push(this.#server);
      const since = new URL(address).searchParams.get("since");
      queueMicrotask(() => serve(since === null ? undefined : Number(since), this.#server));
    }
    send(): void {}
    close(): void {
      this.#server.isClosed = true;
    }
  }
  return { sockets, WebSocket: Fake };
}

function loggedIn(): TokenStore {
  const store = new MemoryTokenStore();
  store.write({ username: "alice", access: "any", refresh: "any" });
  return store;
}
