/** The client's errors. Each message is a sentence for people. */

/** The request failed. */
export class ClientError extends Error {
  override name = "ClientError";
  /** The milliseconds after which the server wants a retry, if it named any. */
  retryAfterMs: number | undefined;

  constructor(message: string, options: { cause?: unknown; retryAfterMs?: number | undefined } = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** Not logged in, the login has ended, or the API key is not valid. */
export class NotLoggedInError extends ClientError {
  override name = "NotLoggedInError";

  constructor(message = "Not logged in, or the login has ended. Log in again, or use an API key.") {
    super(message);
  }
}

/** The server could not be reached until the retries ran out. */
export class UnreachableError extends ClientError {
  override name = "UnreachableError";
}

/** The server closed the socket and does not want a reconnect; `code` is the close code. */
export class RefusedError extends ClientError {
  override name = "RefusedError";

  constructor(
    message: string,
    readonly code: number,
  ) {
    super(message);
  }
}

/** An invalid field of a request. */
export interface FieldError {
  field: string;
  message: string;
}

/** The server answered with an error (RFC 9457). */
export class ProblemError extends ClientError {
  override name = "ProblemError";
  /** The HTTP status. */
  readonly status: number;
  /** A URI for the kind of error, `about:blank` if the status says enough. */
  readonly type: string;
  readonly title: string;
  readonly detail: string;
  /** The invalid fields. */
  readonly errors: readonly FieldError[];
  /** The number of the request in the server's logs. */
  readonly requestId: string | null;
  /** All members of the problem, such as `resets_at`. */
  readonly members: Readonly<Record<string, unknown>>;

  /** @param repeated whether the server may have carried out an earlier attempt whose response was lost. */
  constructor(
    response: Response,
    content: string,
    readonly repeated: boolean,
  ) {
    const members = parseMembers(content);
    const title = String(members["title"] ?? (response.statusText || "unknown"));
    const detail = String(members["detail"] ?? `The server answered ${response.status} (${title}).`);
    const errors = fieldErrors(members["errors"]);
    const fields = errors.map(({ field, message }) => `${field}: ${message.replace(/\.$/, "")}.`);
    super([detail, ...fields].join(" "), { retryAfterMs: milliseconds(response.headers.get("Retry-After")) });
    this.status = response.status;
    this.type = String(members["type"] ?? "about:blank");
    this.title = title;
    this.detail = detail;
    this.errors = errors;
    this.requestId = response.headers.get("X-Request-ID");
    this.members = members;
  }

  /** Whether the server is too busy or broken, so that a retry may succeed. */
  get isTemporary(): boolean {
    return this.status === 429 || this.status >= 500;
  }
}

function parseMembers(content: string): Record<string, unknown> {
  let found: unknown;
  try {
    found = JSON.parse(content);
  } catch {
    return {}; // a proxy's page
  }
  if (!isObject(found)) return {};
  const { error } = found;
  if (!isObject(error)) return found;
  // OpenAI's API, below `/v1/`, has another shape.
  return { ...error, type: `urn:promptwire:problem:${String(error["code"])}`, detail: error["message"] };
}

function fieldErrors(found: unknown): FieldError[] {
  if (!Array.isArray(found)) return [];
  return found.filter(isObject).map((each) => ({ field: String(each["field"]), message: String(each["message"]) }));
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A `Retry-After` header (RFC 9110, section 10.2.3): seconds or a date. Undefined if it is missing or invalid. */
function milliseconds(retryAfter: string | null): number | undefined {
  if (retryAfter === null) return undefined;
  if (/^\d+$/.test(retryAfter)) return Number(retryAfter) * 1000;
  const moment = Date.parse(retryAfter);
  return Number.isNaN(moment) ? undefined : Math.max(0, moment - Date.now());
}
