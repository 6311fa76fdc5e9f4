// Prompts as cards. Texts of users and models are set as text, never as HTML.

import { isRunning } from "./prompts.js";
import { ago, nearness } from "./format.js";

const STATUS = {
  queued: "Queued",
  processing: "Answering",
  completed: "Answered",
  failed: "Failed",
  cancelled: "Cancelled",
};
// Longer texts get a scroll bar, and with it a place in the tab order.
const LONG_CHARACTERS = 1200;
const LONG_LINES = 14;

const template = document.getElementById("card");

/** A list of cards, highest id first or in the order in which they are shown. */
export class Cards {
  #items = new Map();

  /** `act(name, id, button)` is called when a button is pressed. */
  constructor(list, act) {
    this.list = list;
    list.addEventListener("click", ({ target }) => {
      const button = target.closest("button[data-action]");
      if (button) act(button.dataset.action, Number(button.closest("li").dataset.id), button);
    });
  }

  /** Shows a prompt, or what is new of it, at its place by id. */
  put(prompt) {
    let item = this.#items.get(prompt.id);
    if (!item) {
      item = this.#make(prompt.id);
      const next = [...this.list.children].find((other) => Number(other.dataset.id) < prompt.id);
      this.list.insertBefore(item, next ?? null);
    }
    fill(item, prompt);
  }

  /** Shows these, in this order, and nothing else. */
  show(prompts) {
    const kept = new Set(prompts.map(({ id }) => id));
    for (const id of [...this.#items.keys()]) if (!kept.has(id)) this.remove(id);
    for (const prompt of prompts) {
      const item = this.#items.get(prompt.id) ?? this.#make(prompt.id);
      fill(item, prompt);
    }
    this.list.append(...prompts.map(({ id }) => this.#items.get(id)));
  }

  /** Removes a card. The focus, if it was there, goes to its neighbour. */
  remove(id) {
    const item = this.#items.get(id);
    if (!item) return;
    const hadFocus = item.contains(document.activeElement);
    const neighbour = item.nextElementSibling ?? item.previousElementSibling;
    item.remove();
    this.#items.delete(id);
    if (hadFocus) (neighbour?.querySelector(".card") ?? document.getElementById("main")).focus();
  }

  /** Says anew how long ago everything was. */
  tick() {
    for (const time of this.list.querySelectorAll("time")) set(time, ago(time.dateTime));
  }

  #make(id) {
    const item = template.content.cloneNode(true).firstElementChild;
    item.dataset.id = id;
    item.querySelector(".card").setAttribute("aria-label", `Prompt ${id}`);
    this.#items.set(id, item);
    return item;
  }
}

function fill(item, prompt) {
  const find = (selector) => item.querySelector(selector);
  const status = prompt.status ?? "completed";
  const running = isRunning({ status });
  const card = find(".card");
  card.dataset.status = status;
  card.setAttribute("aria-busy", String(running));
  set(find(".status"), STATUS[status]);
  fillNearness(find(".nearness"), prompt.similarity_score);

  const time = find("time");
  time.dateTime = prompt.created_at;
  time.title = new Date(prompt.created_at).toLocaleString();
  set(time, ago(prompt.created_at));

  setText(find(".prompt"), prompt.prompt_text, `Text of prompt ${prompt.id}`);
  const arrived = (prompt.arrived ?? "") + (prompt.hasGap ? " …" : "");
  const answer = running ? arrived : (prompt.response_text ?? "");
  setText(find(".answer"), answer, `Answer to prompt ${prompt.id}`);
  find(".answer").hidden = !answer;
  set(find(".error"), prompt.error ?? "");
  find(".error").hidden = !prompt.error || status === "cancelled";

  const offered = { cancel: running, retry: status === "failed" || status === "cancelled", remove: true };
  for (const button of item.querySelectorAll("button")) {
    const isOffered = offered[button.dataset.action];
    if (!isOffered && button === document.activeElement) card.focus();
    button.hidden = !isOffered;
    button.setAttribute("aria-label", `${button.textContent} prompt ${prompt.id}`);
  }
}

function fillNearness(place, score) {
  place.hidden = score === undefined;
  if (score === undefined) return;
  const { share, words } = nearness(score);
  const meter = place.querySelector("meter");
  meter.value = share;
  meter.setAttribute("aria-label", "Nearness");
  set(place.querySelector(".in-words"), words);
}

function setText(place, text, label) {
  set(place, text);
  const isLong = text.length > LONG_CHARACTERS || text.split("\n", LONG_LINES + 1).length > LONG_LINES;
  if (isLong === place.classList.contains("long")) return;
  place.classList.toggle("long", isLong);
  for (const [name, value] of Object.entries({ tabindex: "0", role: "group", "aria-label": label })) {
    if (isLong) place.setAttribute(name, value);
    else place.removeAttribute(name);
  }
}

/** Sets only what differs, which leaves selections alone. */
function set(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
