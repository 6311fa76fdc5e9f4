/** The events of a user's WebSocket room, each once, across reconnects. */

import { ClientError, NotLoggedInError, ProblemError, RefusedError, UnreachableError } from "./errors.js";
import { type RoomEvent } from "./resources.js";
import { Retries, type RetryLimits, UNLIMITED } from "./retries.js";
import { type Session } from "./session.js";
import { SocketClosed, type WebSocketConstructor, receive } from "./socket.js";

const UNAUTHENTICATED = 4401;
/** The user has as many sockets as allowed. Some of them may have ended, which the server has not noticed yet. */
const TOO_MANY_SOCKETS = 4429;
/** Other close codes from here on are the application's: reconnecting would not help. */
const FIRST_APPLICATION_CODE = 4000;
const NO_WEBSOCKET =
  "There is no WebSocket here. In Node 20, give the client one (of the package ws), or start node with " +
  "--experimental-websocket. All other methods work without it.";

export interface ListenOptions {
  /** The `seq` of the last known event: the events after it come first. Without it, only new events come. */
  since?: number | undefined;
  /** Also prompts that were submitted without `websocket`, and deletions. */
  all?: boolean | undefined;
  signal?: AbortSignal | undefined;
  /** Is called after each connection, with the `seq` of the user's newest event. */
  onConnected?: ((seq: number) => void) | undefined;
}

type Message = RoomEvent | { type: "connected"; seq: number };

export class Room {
  #url: string;
  #session: Session;
  #limits: RetryLimits;
  #silenceMs: number;
  #WebSocket: WebSocketConstructor | undefined;

  constructor(
    url: string,
    session: Session,
    limits: RetryLimits,
    silenceMs: number,
    WebSocket: WebSocketConstructor | undefined,
  ) {
    this.#url = url;
    this.#session = session;
    this.#limits = limits;
    this.#silenceMs = silenceMs;
    this.#WebSocket = WebSocket;
  }

  /**
   * Yields the room's events without end. After the first connection it reconnects without a limit.
   *
   * @throws NotLoggedInError, RefusedError, ProblemError: the server refuses the connection.
   * @throws UnreachableError: the first connection failed.
   */
  async *events(options: ListenOptions): AsyncGenerator<RoomEvent, void> {
    const { signal, onConnected } = options;
    let { since } = options;
    let retries = new Retries(this.#limits);
    let refused: string | undefined; // the token that the server has just refused
    for (;;) {
      let token: string | undefined;
      try {
        const username = await this.#session.username(signal);
        token = refused === undefined ? await this.#session.token() : await this.#session.renew(refused, signal);
        for await (const message of this.#messages(username, token, { ...options, since })) {
          if (message.type === "connected") {
            [retries, refused] = [new Retries(UNLIMITED), undefined];
            since ??= message.seq;
            onConnected?.(message.seq);
          } else if (message.type === "reset" || since === undefined || message.seq > since) {
            since = message.seq;
            yield message;
          }
        }
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof RefusedError && error.code === UNAUTHENTICATED) {
          if (refused !== undefined || !this.#session.isRenewable) throw new NotLoggedInError(error.message);
          refused = token;
        } else {
          if (!isTemporary(error)) throw error;
          refused = undefined; // the token that replaces it may expire, too, before the server can be reached
          await retries.wait(error, signal);
        }
      }
    }
  }

  /** Yields `connected` and the events of one connection. Throws when the connection ends. */
  async *#messages(username: string, token: string, options: ListenOptions): AsyncGenerator<Message, void> {
    if (this.#WebSocket === undefined) throw new ClientError(NO_WEBSOCKET);
    let refusal: string | undefined;
    try {
      // Browsers cannot set headers, and the token must not be in the URL.
      const socket = new this.#WebSocket(this.#address(username, options), ["bearer", token]);
      for await (const message of receive(socket, this.#silenceMs, options.signal)) {
        if (!("type" in message)) refusal = String(message["error"]);
        else if ("seq" in message) yield message as unknown as Message; // deltas have no seq
      }
    } catch (error) {
      if (!(error instanceof SocketClosed)) throw error;
      const isTemporary = error.code < FIRST_APPLICATION_CODE || error.code === TOO_MANY_SOCKETS;
      if (!isTemporary) throw new RefusedError(refusal ?? "The server closed the socket.", error.code);
      throw new UnreachableError(`The room of ${username} cannot be reached (${refusal ?? error.message}).`);
    }
  }

  #address(username: string, { since, all }: ListenOptions): string {
    const query = new URLSearchParams();
    if (since !== undefined) query.set("since", String(since));
    if (all) query.set("all", "true");
    return `${this.#url.replace(/^http/, "ws")}/ws/prompts/${encodeURIComponent(username)}/?${query}`;
  }
}

function isTemporary(error: unknown): error is UnreachableError | ProblemError {
  return error instanceof UnreachableError || (error instanceof ProblemError && error.isTemporary);
}
