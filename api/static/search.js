// Search as you type.

const PAUSE = 200;

const field = document.getElementById("search");
const results = document.getElementById("results");
const all = document.getElementById("all");
const empty = document.getElementById("results-empty");

export class Search {
  #asked = null;
  #timer = null;

  /** `find(text, signal)` resolves to prompts with their `similarity_score`, which `cards` then show. */
  constructor(find, cards, say) {
    Object.assign(this, { find, cards, say });
    field.addEventListener("input", () => this.#after(PAUSE));
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
    this.#look();
  }

  /** Looks again: there is a new answer, or one less. */
  again() {
    if (field.value.trim()) this.#after(PAUSE);
  }

  #after(pause) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), pause);
  }

  async #look() {
    // Whatever is still asked for is out of date.
    this.#asked?.abort();
    const text = field.value.trim();
    results.hidden = !text;
    all.hidden = Boolean(text);
    if (!text) return this.cards.show([]);
    const asked = (this.#asked = new AbortController());
    results.setAttribute("aria-busy", "true");
    let found, trouble;
    try {
      found = await this.find(text, asked.signal);
    } catch (error) {
      trouble = error.message;
    }
    if (asked.signal.aborted) return;
    results.setAttribute("aria-busy", "false");
    if (found) this.cards.show(found);
    empty.textContent = trouble ?? "Nothing of yours is near that.";
    empty.hidden = Boolean(found?.length);
    this.say(found?.length ? `${found.length} found. Nearest: ${found[0].prompt_text}` : empty.textContent);
  }
}
