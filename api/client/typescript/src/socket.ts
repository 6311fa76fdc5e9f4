/** The messages of one WebSocket as an iterator. */

import { MAX_TIMER_MS } from "./abort.js";

/** What this client uses of a WebSocket: that of browsers and of Node 22, or of the package `ws`. */
export interface WebSocketLike {
  readonly readyState: number;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(): void;
}

export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike;

/** The socket has ended, with this close code. */
export class SocketClosed extends Error {
  constructor(readonly code: number) {
    super(`the socket was closed (${code})`);
  }
}

const OPEN = 1;
const ABNORMAL = 1006;
const TOO_SLOW = 1013;
const MAX_QUEUED = 1_000;

/**
 * Yields the messages of a socket until it ends, then throws SocketClosed. Closes the socket.
 *
 * A socket that is silent for `silenceMs`, although it was sent a `ping`, has ended. So has one whose messages are not
 * taken as fast as they come: a browser would read on without a limit.
 */
export async function* receive(
  socket: WebSocketLike,
  silenceMs: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Record<string, unknown>, never> {
  const queue: string[] = [];
  let code: number | undefined;
  let isSilent = false;
  let wake = (): void => {};

  const end = (reason: number): void => {
    code ??= reason;
    wake();
  };
  const abort = (): void => end(ABNORMAL);
  const heartbeat = setInterval(() => {
    if (isSilent) end(ABNORMAL);
    isSilent = true;
    if (socket.readyState === OPEN) socket.send('{"type":"ping"}');
  }, Math.min(silenceMs / 2, MAX_TIMER_MS));
  signal?.addEventListener("abort", abort);
  socket.onmessage = ({ data }: { data: unknown }) => {
    isSilent = false;
    if (queue.length === MAX_QUEUED) end(TOO_SLOW);
    else if (code === undefined) queue.push(String(data));
    wake();
  };
  socket.onclose = (closed: { code: number }) => end(closed.code);
  socket.onerror = () => {}; // `close` follows

  try {
    for (;;) {
      signal?.throwIfAborted();
      const message = queue.shift();
      if (message !== undefined) yield JSON.parse(message) as Record<string, unknown>;
      else if (code !== undefined) throw new SocketClosed(code);
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    clearInterval(heartbeat);
    signal?.removeEventListener("abort", abort);
    socket.onmessage = socket.onclose = null;
    socket.close();
  }
}
