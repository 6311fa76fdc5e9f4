// Search as you type, by meaning or by words. It begins with a few results, and goes on where the list ends.

import { excerpt } from "./format.js";

const DEBOUNCE = 200; // milliseconds
const LIMITS = [10, 50]; // of the API, 50 is the largest

const field = document.getElementById("search");
const mode = document.getElementById("search-mode");
const results = document.getElementById("results");
const all = document.getElementById("all");
const empty = document.getElementById("results-empty");
const more = document.getElementById("more-results");

export class Search {
  #request = null;
  #timer = null;
  #limit = LIMITS[0];

  /**
   * `find(text, { mode, limit, signal })` resolves to prompts with a `similarity_score`, which are shown as `cards`. `say`
   * announces a text.
   */
  constructor(find, cards, say) {
    Object.assign(this, { find, cards, say });
    field.addEventListener("input", () => this.#schedule());
    mode.addEventListener("change", () => this.refresh());
    more.addEventListener("click", () => this.#more());
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
    if (field.value.trim()) this.#schedule(this.#limit);
  }

  #schedule(limit = LIMITS[0]) {
    this.#limit = limit;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#run(), DEBOUNCE);
  }

  async #more() {
    this.#limit = LIMITS.at(-1);
    const known = new Set(this.cards.ids);
    await this.#run();
    this.cards.focus(this.cards.ids.find((id) => !known.has(id)));
  }

  async #run() {
    // A search that is still running is out of date.
    this.#request?.abort();
    const text = field.value.trim();
    results.hidden = !text;
    all.hidden = Boolean(text);
    if (!text) return this.cards.show([]);
    const request = (this.#request = new AbortController());
    const limit = this.#limit;
    results.setAttribute("aria-busy", "true");
    let found, problem;
    try {
      found = await this.find(text, { mode: mode.value, limit, signal: request.signal });
    } catch (error) {
      problem = error.message;
    }
    if (request.signal.aborted) return;
    results.setAttribute("aria-busy", "false");
    if (found) this.cards.show(found);
    more.hidden = !found || found.length < limit || limit === LIMITS.at(-1);
    empty.textContent = problem ?? NOTHING[mode.value];
    empty.hidden = Boolean(found?.length);
    this.say(found?.length ? `${found.length} found. First: ${excerpt(found[0].prompt_text)}` : empty.textContent);
  }
}

const NOTHING = {
  vector: "None of your answered prompts is similar to that.",
  text: "None of your answered prompts has these words.",
};
