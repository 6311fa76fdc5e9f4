// Search as you type.

const DEBOUNCE = 200; // milliseconds

const field = document.getElementById("search");
const results = document.getElementById("results");
const all = document.getElementById("all");
const empty = document.getElementById("results-empty");

export class Search {
  #request = null;
  #timer = null;

  /** `find(text, signal)` resolves to prompts with a `similarity_score`, which are shown as `cards`. */
  constructor(find, cards, say) {
    Object.assign(this, { find, cards, say });
    field.addEventListener("input", () => this.#schedule());
    field.addEventListener("keydown", ({ key }) => {
      if (key === "Escape") this.clear();
    });
  }

  focus() {
    field.focus();
    field.select();
  }

  clear() {
    field.value = "";
    clearTimeout(this.#timer);
    this.#run();
  }

  /** Repeats the search, because a prompt was answered or deleted. */
  refresh() {
    if (field.value.trim()) this.#schedule();
  }

  #schedule() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#run(), DEBOUNCE);
  }

  async #run() {
    // A search that is still running is out of date.
    this.#request?.abort();
    const text = field.value.trim();
    results.hidden = !text;
    all.hidden = Boolean(text);
    if (!text) return this.cards.show([]);
    const request = (this.#request = new AbortController());
    results.setAttribute("aria-busy", "true");
    let found, problem;
    try {
      found = await this.find(text, request.signal);
    } catch (error) {
      problem = error.message;
    }
    if (request.signal.aborted) return;
    results.setAttribute("aria-busy", "false");
    if (found) this.cards.show(found);
    empty.textContent = problem ?? "None of your answered prompts is similar to that.";
    empty.hidden = Boolean(found?.length);
    this.say(found?.length ? `${found.length} found. Most similar: ${found[0].prompt_text}` : empty.textContent);
  }
}
