// The calls that the page makes.

const PAGE = 20;
const AT_MOST = 100;
// Squared distances of unit vectors reach 4; beyond this, texts have nothing in common.
const FARTHEST = 1.8;

export class Api {
  constructor(session) {
    this.session = session;
  }

  /** `key` makes it safe to submit again when no answer came. */
  async submit(text, key) {
    const body = { prompt_text: text, websocket: true };
    return (await this.session.send("POST", "/prompts/", { body, headers: { "Idempotency-Key": key } })).body;
  }

  async show(id) {
    return (await this.session.send("GET", `/prompts/${id}/`)).body;
  }

  async cancel(id) {
    return (await this.session.send("POST", `/prompts/${id}/cancel/`)).body;
  }

  async retry(id) {
    return (await this.session.send("POST", `/prompts/${id}/retry/`)).body;
  }

  async remove(id) {
    await this.session.send("DELETE", `/prompts/${id}/`);
  }

  /** The newest prompts, `count` or more of them if there are: `{ prompts, next }`, `next` for `after`. */
  async newest(count) {
    let { prompts, next } = await this.after(`/prompts/?limit=${Math.min(Math.max(count, PAGE), AT_MOST)}`);
    while (next && prompts.length < count) {
      const more = await this.after(next);
      prompts = prompts.concat(more.prompts);
      next = more.next;
    }
    return { prompts, next };
  }

  /** The page that a `next` leads to. */
  async after(path) {
    const { body, headers } = await this.session.send("GET", path);
    const next = /<([^>]+)>; rel="next"/.exec(headers.get("Link") ?? "");
    return { prompts: body, next: next && next[1] };
  }

  async similar(text, signal) {
    const query = new URLSearchParams({ prompt: text, limit: 8, max_score: FARTHEST });
    return (await this.session.send("GET", `/prompts/similar/?${query}`, { signal })).body;
  }
}
