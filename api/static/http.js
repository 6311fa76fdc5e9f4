// HTTP requests to the API, and their errors.

/** The address of the page, below which the API is. A proxy may publish it below a path of its own. */
const ROOT = new URL("..", import.meta.url);

/** The URL of a path of the API, which is relative to ROOT. */
export const address = (path) => new URL(path, ROOT);

/** An error response of the API (RFC 9457). `retryAfter` is in seconds, or null. */
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super((body?.errors ?? []).map(sentence).join(" ") || body?.detail || `The server answered with ${status}.`);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const SENTENCES = {
  username: 'Usernames use letters, digits, "_", "." and "-" (up to 150).',
  password: "Passwords have 8 to 1024 characters.",
};

/** What is wrong with a field, for people. */
function sentence({ field, message }) {
  if (SENTENCES[field]) return SENTENCES[field];
  const text = `${field === "prompt_text" ? "The prompt" : field.replaceAll("_", " ")} ${message}`;
  return text.charAt(0).toUpperCase() + text.slice(1).replace(/[.]?$/, ".");
}

/** No response came: the network or the server is unavailable. */
export class Unreachable extends Error {
  constructor() {
    super("The server is unavailable at the moment.");
  }
}

/**
 * Sends a request to a path, relative to the page, and returns the response: `{ body, headers }`. The body is parsed
 * JSON, or a Blob if `as` is "blob".
 * Throws Problem, Unreachable, or the AbortError of `signal`.
 */
export async function send(method, path, { body, token, headers = {}, signal, as } = {}) {
  const all = { Accept: "application/json", ...headers };
  if (token) all.Authorization = `Bearer ${token}`;
  if (body !== undefined) all["Content-Type"] = "application/json";
  let response, text;
  try {
    const init = { method, headers: all, body: body && JSON.stringify(body), signal, cache: "no-store" };
    response = await fetch(address(path), init);
    if (as === "blob" && response.ok) return { body: await response.blob(), headers: response.headers };
    text = await response.text();
  } catch (error) {
    throw error.name === "AbortError" ? error : new Unreachable();
  }
  const content = parseJson(text);
  if (!response.ok) throw new Problem(response.status, content, parseSeconds(response.headers.get("Retry-After")));
  return { body: content, headers: response.headers };
}

/** Whether the server answers. */
export const isReachable = () => fetch(address("livez/"), { cache: "no-store" }).then(({ ok }) => ok, () => false);

/** Parses JSON; null if it is not valid, as in the error page of a proxy. */
function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function parseSeconds(header) {
  return header && /^\d+$/.test(header) ? Number(header) : null;
}
