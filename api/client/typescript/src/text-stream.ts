/** The text of an answer while it is generated: server-sent events, each once, across reconnects. */

import { Timeout } from "./abort.js";
import { ClientError, UnreachableError } from "./errors.js";
import { causeOf, notPromptwire } from "./http.js";
import { type StreamEvent } from "./resources.js";
import { Retries, type RetryLimits } from "./retries.js";
import { EventDecoder } from "./server-sent-events.js";
import { type Session } from "./session.js";

/** The text streams of a user's prompts. A stream that is silent for `silenceMs` is resumed. */
export class TextStreams {
  #session: Session;
  #limits: RetryLimits;
  #silenceMs: number;

  constructor(session: Session, limits: RetryLimits, silenceMs: number) {
    this.#session = session;
    this.#limits = limits;
    this.#silenceMs = silenceMs;
  }

  /**
   * Yields the deltas of a prompt's text from its beginning, then the event of its end.
   *
   * A stream that sent anything resets the retry limits. Throws the errors of `Session.request`.
   */
  async *follow(promptId: number, signal: AbortSignal | undefined): AsyncGenerator<StreamEvent, void> {
    let retries = new Retries(this.#limits);
    let lastEventId = "";
    for (;;) {
      const decoder = new EventDecoder(lastEventId);
      let cause = "the server closed the stream";
      try {
        for await (const text of this.#open(promptId, lastEventId, signal)) {
          retries = new Retries(this.#limits);
          for (const { type, data } of decoder.decode(text)) {
            lastEventId = decoder.lastEventId;
            yield JSON.parse(data) as StreamEvent;
            if (type !== "prompt.delta") return;
          }
        }
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof ClientError) throw error;
        cause = causeOf(error);
      }
      const failure = `The text of prompt ${promptId} was interrupted (${cause}).`;
      await retries.wait(new UnreachableError(failure, { retryAfterMs: decoder.retryMs }), signal);
    }
  }

  /** Yields the parts of the text of one connection. */
  async *#open(promptId: number, lastEventId: string, signal: AbortSignal | undefined): AsyncGenerator<string, void> {
    const silence = new Timeout(signal);
    try {
      const headers = {
        Accept: "text/event-stream, application/problem+json",
        "Cache-Control": "no-store",
        ...(lastEventId === "" ? {} : { "Last-Event-ID": lastEventId }),
      };
      const options = { headers, signal: silence.signal };
      const response = await this.#session.request("GET", `/prompts/${promptId}/stream/`, options, opened);
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      for (;;) {
        silence.start(this.#silenceMs);
        const { done, value } = await reader.read();
        silence.stop(); // the caller may take its time
        if (done) return;
        yield decoder.decode(value, { stream: true });
      }
    } finally {
      silence.abort();
    }
  }
}

async function opened(response: Response): Promise<Response & { body: ReadableStream<Uint8Array> }> {
  const isStream = response.headers.get("Content-Type")?.startsWith("text/event-stream");
  if (!isStream || response.body === null) throw notPromptwire(response);
  return response as Response & { body: ReadableStream<Uint8Array> };
}
