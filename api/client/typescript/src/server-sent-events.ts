/** Server-sent events (HTML Standard, section 9.2.6). */

export interface ServerSentEvent {
  type: string;
  data: string;
}

/** Decodes the text of an event stream, which may be cut anywhere. */
export class EventDecoder {
  lastEventId: string;
  /** The time after which the server wants the client to connect again. */
  retryMs: number | undefined;
  #rest = "";
  #type = "";
  #data: string[] = [];

  /** @param lastEventId what the stream is resumed after; it is that of the next events, until one has another. */
  constructor(lastEventId = "") {
    this.lastEventId = lastEventId;
  }

  /** Yields the events that this part of the text completes. */
  *decode(text: string): Generator<ServerSentEvent, void> {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/); // a CR at the end may be half of a CRLF
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line !== "") {
        this.#readField(line);
      } else {
        if (this.#data.length > 0) yield { type: this.#type || "message", data: this.#data.join("\n") };
        this.#type = "";
        this.#data = [];
      }
    }
  }

  #readField(line: string): void {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon); // empty: a comment
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.#type = value;
    else if (name === "data") this.#data.push(value);
    else if (name === "id" && !value.includes("\0")) this.lastEventId = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
  }
}
