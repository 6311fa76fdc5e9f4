// The API calls of the page.

const PAGE_SIZE = 20;
const OLDER_PAGE_SIZE = 100;
// Squared distances of unit vectors go up to 4. Texts farther apart than this have nothing in common.
const MAX_DISTANCE = 1.8;

export class Api {
  constructor(session) {
    this.session = session;
  }

  /** The idempotency key makes it safe to submit again if no answer came. */
  async submit(text, key) {
    const body = { prompt_text: text, websocket: true };
    return (await this.session.send("POST", "prompts/", { body, headers: { "Idempotency-Key": key } })).body;
  }

  async account() {
    return (await this.session.send("GET", "account/")).body;
  }

  async get(id) {
    return (await this.session.send("GET", `prompts/${id}/`)).body;
  }

  async cancel(id) {
    return (await this.session.send("POST", `prompts/${id}/cancel/`)).body;
  }

  async retry(id) {
    return (await this.session.send("POST", `prompts/${id}/retry/`)).body;
  }

  async delete(id) {
    await this.session.send("DELETE", `prompts/${id}/`);
  }

  /** Fetches the newest prompts, of one status if it is given: `{ prompts, next }`, where `next` is for `page`. */
  newest(status, limit = PAGE_SIZE) {
    const query = new URLSearchParams({ limit, ...(status && { status }) });
    return this.page(`prompts/?${query}`);
  }

  /** Fetches the newest queued prompts. */
  queued() {
    return this.newest("queued", OLDER_PAGE_SIZE);
  }

  /** Fetches one page of a list. The next one has the same path, and the query of the link. */
  async page(path, options) {
    const { body, headers } = await this.session.send("GET", path, options);
    const next = /<[^>?]*(\?[^>]+)>; rel="next"/.exec(headers.get("Link") ?? "");
    return { prompts: body, next: next && path.split("?")[0] + next[1] };
  }

  /** Fetches the next page of a list, which is longer than the first. */
  older(next) {
    return this.page(next.replace(/\blimit=\d+/, `limit=${OLDER_PAGE_SIZE}`));
  }

  /** Fetches the `limit` prompts that are most like a text; by its words with the mode "text", else by its meaning. */
  async similar(text, { mode, limit, signal }) {
    const query = new URLSearchParams({ prompt: text, mode, limit });
    if (mode === "vector") query.set("max_score", MAX_DISTANCE);
    let { prompts, next } = await this.page(`prompts/similar/?${query}`, { signal });
    while (next && prompts.length < limit) {
      const more = await this.page(next, { signal });
      prompts = prompts.concat(more.prompts);
      next = more.next;
    }
    return prompts;
  }

  /** Fetches all prompts, as JSON Lines. A browser keeps a large file on its disk. */
  export() {
    return this.session.send("GET", "account/export/", { as: "blob" });
  }
}
