// One call to the API, and what can become of it.

/** The API refused: an RFC 9457 problem. `retryAfter` is in seconds, or null. */
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    const fields = (body?.errors ?? []).map(({ field, message }) => `${field}: ${message}`);
    super(fields.join(" ") || body?.detail || `The server answered with ${status}.`);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** No answer came: the network or the server is away. */
export class Unreachable extends Error {
  constructor() {
    super("The server cannot be reached at the moment.");
  }
}

/**
 * Sends a request and returns the answer: `{ body, headers }`.
 * Throws Problem, Unreachable, or the AbortError of `signal`.
 */
export async function send(method, path, { body, token, headers = {}, signal } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (token) sent.Authorization = `Bearer ${token}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let answer, read;
  try {
    answer = await fetch(path, { method, headers: sent, body: body && JSON.stringify(body), signal, cache: "no-store" });
    read = await answer.text();
  } catch (error) {
    throw error.name === "AbortError" ? error : new Unreachable();
  }
  const found = parsed(read);
  if (!answer.ok) throw new Problem(answer.status, found, secondsIn(answer.headers.get("Retry-After")));
  return { body: found, headers: answer.headers };
}

/** The JSON, or null: a proxy in between answers in whatever it likes. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function secondsIn(header) {
  return header && /^\d+$/.test(header) ? Number(header) : null;
}
