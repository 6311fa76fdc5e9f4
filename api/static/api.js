// The API calls of the page.

const PAGE_SIZE = 20;
const MAX_PAGE_SIZE = 100;
const SEARCH_LIMIT = 8;
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

  /** Fetches the newest prompts, at least `count` if there are that many: `{ prompts, next }`, where `next` is for `page`. */
  async newest(count) {
    let { prompts, next } = await this.page(`prompts/?limit=${Math.min(Math.max(count, PAGE_SIZE), MAX_PAGE_SIZE)}`);
    while (next && prompts.length < count) {
      const more = await this.page(next);
      prompts = prompts.concat(more.prompts);
      next = more.next;
    }
    return { prompts, next };
  }

  /** Fetches the newest queued prompts. */
  queued() {
    return this.page(`prompts/?status=queued&limit=${MAX_PAGE_SIZE}`);
  }

  /** Fetches one page of a list. The next one has the same path, and the query of the link. */
  async page(path, options) {
    const { body, headers } = await this.session.send("GET", path, options);
    const next = /<[^>?]*(\?[^>]+)>; rel="next"/.exec(headers.get("Link") ?? "");
    return { prompts: body, next: next && path.split("?")[0] + next[1] };
  }

  async similar(text, signal) {
    const query = new URLSearchParams({ prompt: text, limit: SEARCH_LIMIT, max_score: MAX_DISTANCE });
    let { prompts, next } = await this.page(`prompts/similar/?${query}`, { signal });
    while (next) {
      const more = await this.page(next, { signal });
      prompts = prompts.concat(more.prompts);
      next = more.next;
    }
    return prompts;
  }
}
