// Lists of cards. A long list keeps only the cards near the visible part filled: ten thousand full ones would take
// hundreds of megabytes, and each change of the list a second.

import * as contents from "./card.js";

// Shorter lists are filled as a whole, so that the browser's own search finds everything in them.
const ALWAYS_FILLED = 50;
const MARGIN = 1_200; // pixels

const template = document.getElementById("card");

/** A list of cards: `put` sorts by id, newest first; `show` keeps the given order. */
export class Cards {
  #items = new Map(); // the item, its prompt, and which of its texts are shown as a whole, by id
  #ids = []; // in the order of the list
  #filled = new Set(); // ids
  #frame = null;

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
    // Ten thousand intersection observers would take longer than a frame. The list's size changes when it is shown again,
    // and when cards go.
    for (const type of ["scroll", "resize"]) addEventListener(type, () => this.#fillVisible(), { passive: true });
    new ResizeObserver(() => this.#fillVisible()).observe(list);
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
    // An item that is in its place is not moved: it would lose the focus and what is selected in it.
    this.#ids.forEach((id, index) => {
      const { item } = this.#items.get(id);
      const there = this.list.children[index] ?? null;
      if (there !== item) this.list.insertBefore(item, there);
    });
  }

  /** Removes a card. If it had the focus, the next card gets it. */
  remove(id) {
    const entry = this.#items.get(id);
    if (!entry) return;
    const { item } = entry;
    const hadFocus = item.contains(document.activeElement);
    const neighbour = item.nextElementSibling ?? item.previousElementSibling;
    item.remove();
    this.#items.delete(id);
    this.#filled.delete(id);
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
    return entry;
  }

  #update(prompt) {
    const entry = this.#items.get(prompt.id);
    entry.prompt = prompt;
    if (prompt.partialText) entry.expanded.add("answer"); // an answer that arrives stays shown as a whole
    if (this.#filled.has(prompt.id) || this.#items.size <= ALWAYS_FILLED) this.#fill(entry);
    else this.#fillVisible();
  }

  #fill({ item, card, prompt, expanded }) {
    contents.fill(card, prompt, expanded);
    item.style.minHeight = "";
    this.#filled.add(prompt.id);
  }

  /** In the next frame, fills the cards that are near the visible part, and empties the others. */
  #fillVisible() {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      if (this.list.offsetParent === null) return;
      const near = new Set(this.#items.size <= ALWAYS_FILLED ? this.#ids : this.#near());
      const far = [...this.#filled].filter((id) => !near.has(id)).map((id) => this.#items.get(id));
      const heights = far.map(({ item }) => item.offsetHeight);
      far.forEach((entry, index) => empty(entry, heights[index]) && this.#filled.delete(entry.prompt.id));
      for (const id of near) if (!this.#filled.has(id)) this.#fill(this.#items.get(id));
    });
  }

  /** The ids of the cards that are near the visible part. */
  #near() {
    const box = (index) => this.#items.get(this.#ids[index]).item.getBoundingClientRect();
    const first = firstIndex(this.#ids.length, (index) => box(index).bottom > -MARGIN);
    let last = first;
    while (last < this.#ids.length && box(last).top < innerHeight + MARGIN) last += 1;
    return this.#ids.slice(first, last);
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
    return firstIndex(this.#ids.length, (index) => this.#ids[index] < id);
  }
}

/** The first index below `length` for which a condition holds, as it does for all later ones; `length` if there is none. */
function firstIndex(length, holds) {
  let [low, high] = [0, length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Empties a card, and keeps its height, unless it has the focus or a selection. Returns whether it did. */
function empty({ item, card }, height) {
  const selection = getSelection();
  const isSelected = !selection.isCollapsed && selection.containsNode(item, true);
  if (isSelected || item.contains(document.activeElement)) return false;
  item.style.minHeight = `${height}px`;
  card.replaceChildren();
  return true;
}
