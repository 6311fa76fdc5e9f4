// Lists of cards. A long list keeps only the cards near the visible part filled: ten thousand full ones would take
// hundreds of megabytes, and each change of the list a second.

import * as contents from "./card.js";

// Shorter lists are filled as a whole, so that the browser's own search finds everything in them.
const ALWAYS_FILLED = 50;
const MARGIN = "1200px 0px";

const template = document.getElementById("card");

/** A list of cards: `put` sorts by id, newest first; `show` keeps the given order. */
export class Cards {
  #items = new Map(); // the item, its prompt, and which of its texts are shown as a whole, by id
  #ids = []; // in the order of the list
  #observer = new IntersectionObserver((entries) => this.#onMoved(entries), { rootMargin: MARGIN });

  /** `onAction(name, id, button)` is called when a button is pressed. */
  constructor(list, onAction) {
    this.list = list;
    list.addEventListener("click", ({ target }) => {
      const button = target.closest("button[data-action], button[data-expand]");
      if (!button) return;
      const id = Number(button.closest("li").dataset.id);
      if (button.dataset.expand) this.#toggle(id, button);
      else onAction(button.dataset.action, id, button);
    });
    // The focus may go to a link that is below what is shown of a long text.
    list.addEventListener("focusin", ({ target }) => {
      const text = target.closest(".clamped");
      if (text) this.#toggle(Number(text.closest("li").dataset.id), text.nextElementSibling);
    });
  }

  /** The prompt that a card shows. */
  get(id) {
    return this.#items.get(id)?.prompt;
  }

  /** The card of a prompt. */
  card(id) {
    return this.#items.get(id)?.card;
  }

  /** The ids of the cards, in their order. */
  get ids() {
    return this.#ids;
  }

  focus(id) {
    this.card(id)?.focus();
  }

  /** Adds or updates the card of a prompt. */
  put(prompt) {
    if (!this.#items.has(prompt.id)) {
      const entry = this.#make(prompt.id);
      const at = this.#placeOf(prompt.id);
      this.list.insertBefore(entry.item, this.#items.get(this.#ids[at])?.item ?? null);
      this.#ids.splice(at, 0, prompt.id);
      entry.item.classList.toggle("new", at === 0);
    }
    this.#update(prompt);
  }

  /** Shows exactly these prompts, in this order. */
  show(prompts) {
    const kept = new Set(prompts.map(({ id }) => id));
    for (const id of [...this.#ids]) if (!kept.has(id)) this.remove(id);
    for (const prompt of prompts) {
      if (!this.#items.has(prompt.id)) this.#make(prompt.id);
      this.#update(prompt);
    }
    this.#ids = [...kept];
    this.list.append(...this.#ids.map((id) => this.#items.get(id).item));
  }

  /** Removes a card. If it had the focus, the next card gets it. */
  remove(id) {
    const entry = this.#items.get(id);
    if (!entry) return;
    const { item } = entry;
    const hadFocus = item.contains(document.activeElement);
    const neighbour = item.nextElementSibling ?? item.previousElementSibling;
    this.#observer.unobserve(item);
    item.remove();
    this.#items.delete(id);
    this.#ids.splice(this.#ids.indexOf(id), 1);
    if (hadFocus) (neighbour?.querySelector(".card") ?? document.getElementById("main")).focus();
  }

  /** Updates all relative times ("5 minutes ago"). */
  updateTimes() {
    contents.updateTimes(this.list);
  }

  /** Updates how long prompts still wait for their provider. */
  updateWaiting() {
    contents.updateWaiting(this.list);
  }

  #make(id) {
    const item = template.content.cloneNode(true).firstElementChild;
    const card = item.firstElementChild;
    item.dataset.id = id;
    card.setAttribute("aria-label", `Prompt ${id}`);
    const entry = { item, card, prompt: null, expanded: new Set() };
    this.#items.set(id, entry);
    this.#observer.observe(item);
    return entry;
  }

  #update(prompt) {
    const entry = this.#items.get(prompt.id);
    entry.prompt = prompt;
    if (prompt.partialText) entry.expanded.add("answer"); // who has seen it grow has it as a whole
    if (entry.card.firstElementChild || this.#items.size <= ALWAYS_FILLED) this.#fill(entry);
  }

  #fill({ item, card, prompt, expanded }) {
    contents.fill(card, prompt, expanded);
    item.style.minHeight = "";
  }

  #onMoved(entries) {
    for (const { target, isIntersecting, boundingClientRect: box } of entries) {
      const entry = this.#items.get(Number(target.dataset.id));
      if (!entry || box.height === 0) continue; // removed, or in a list that is hidden
      const isFilled = entry.card.firstElementChild !== null;
      if (isIntersecting && !isFilled) this.#fill(entry);
      else if (!isIntersecting && isFilled && this.#items.size > ALWAYS_FILLED) empty(entry, box.height);
    }
  }

  #toggle(id, button) {
    const { card, prompt, expanded } = this.#items.get(id);
    const name = button.dataset.expand;
    if (!expanded.delete(name)) expanded.add(name);
    contents.fill(card, prompt, expanded);
    if (!expanded.has(name)) card.scrollIntoView({ block: "nearest" });
  }

  /** Where an id belongs among the ids, which descend. */
  #placeOf(id) {
    let [low, high] = [0, this.#ids.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ids[middle] > id) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Empties a card that is far away, and keeps its height. The one with the focus or a selection stays. */
function empty({ item, card }, height) {
  const selection = getSelection();
  if (item.contains(document.activeElement) || (!selection.isCollapsed && selection.containsNode(item, true))) return;
  item.style.minHeight = `${height}px`;
  card.replaceChildren();
}
