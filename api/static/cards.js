// The cards of the prompts. Texts of users and models are inserted as text, never as HTML.

import { isRunning } from "./prompts.js";
import { answerText, cutOffNote, similarity, timeAgo } from "./format.js";

const STATUS = {
  queued: "Queued",
  processing: "Answering",
  completed: "Answered",
  failed: "Failed",
  cancelled: "Cancelled",
};
const EMPTIED = "The texts of this prompt were removed because of its age.";
// Longer texts scroll, so they must be focusable.
const MAX_CHARACTERS = 1200;
const MAX_LINES = 14;

const template = document.getElementById("card");

/** A list of cards: `put` sorts by id, newest first; `show` keeps the given order. */
export class Cards {
  #items = new Map();

  /** `onAction(name, id, button)` is called when a button is pressed. */
  constructor(list, onAction) {
    this.list = list;
    list.addEventListener("click", ({ target }) => {
      const button = target.closest("button[data-action]");
      if (button) onAction(button.dataset.action, Number(button.closest("li").dataset.id), button);
    });
  }

  /** Adds or updates the card of a prompt. */
  put(prompt) {
    let item = this.#items.get(prompt.id);
    if (!item) {
      item = this.#make(prompt.id);
      const next = [...this.list.children].find((other) => Number(other.dataset.id) < prompt.id);
      this.list.insertBefore(item, next ?? null);
    }
    fill(item, prompt);
  }

  /** Shows exactly these prompts, in this order. */
  show(prompts) {
    const kept = new Set(prompts.map(({ id }) => id));
    for (const id of [...this.#items.keys()]) if (!kept.has(id)) this.remove(id);
    for (const prompt of prompts) {
      const item = this.#items.get(prompt.id) ?? this.#make(prompt.id);
      fill(item, prompt);
    }
    this.list.append(...prompts.map(({ id }) => this.#items.get(id)));
  }

  /** Removes a card. If it had the focus, the next card gets it. */
  remove(id) {
    const item = this.#items.get(id);
    if (!item) return;
    const hadFocus = item.contains(document.activeElement);
    const neighbour = item.nextElementSibling ?? item.previousElementSibling;
    item.remove();
    this.#items.delete(id);
    if (hadFocus) (neighbour?.querySelector(".card") ?? document.getElementById("main")).focus();
  }

  /** Updates all relative times ("5 minutes ago"). */
  updateTimes() {
    for (const time of this.list.querySelectorAll("time")) set(time, timeAgo(time.dateTime));
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
  set(find(".status"), STATUS[status] + (status === "queued" && prompt.position ? `, position ${prompt.position}` : ""));
  const waiting = status === "queued" && prompt.waiting_for;
  set(find(".waiting"), waiting ? `Waiting for the model: ${waiting.detail} ${nextAttempt(waiting)}` : "");
  find(".waiting").hidden = !waiting;
  fillSimilarity(find(".similarity"), prompt.similarity_score);

  const time = find("time");
  time.dateTime = prompt.created_at;
  time.title = new Date(prompt.created_at).toLocaleString();
  set(time, timeAgo(prompt.created_at));

  setText(find(".prompt"), prompt.emptied_at ? EMPTIED : prompt.prompt_text, `Text of prompt ${prompt.id}`);
  const partial = (prompt.partialText ?? "") + (prompt.hasGap ? " …" : "");
  const answer = running ? partial : answerText(prompt);
  setText(find(".answer"), answer, `Answer to prompt ${prompt.id}`);
  find(".answer").hidden = !answer;
  const note = cutOffNote(prompt);
  set(find(".cut-off"), note);
  find(".cut-off").hidden = !note;
  set(find(".error"), prompt.error ?? "");
  find(".error").hidden = !prompt.error || status === "cancelled";

  const canRetry = (status === "failed" || status === "cancelled") && !prompt.emptied_at;
  const actions = { cancel: running, retry: canRetry, delete: true };
  for (const button of item.querySelectorAll("button")) {
    const isAvailable = actions[button.dataset.action];
    if (!isAvailable && button === document.activeElement) card.focus();
    button.hidden = !isAvailable;
    button.setAttribute("aria-label", `${button.textContent} prompt ${prompt.id}`);
  }
}

function nextAttempt({ next_attempt_at: at }) {
  return at ? `Next attempt at ${new Date(at).toLocaleTimeString()}.` : "";
}

function fillSimilarity(element, score) {
  element.hidden = score === undefined;
  if (score === undefined) return;
  const { value, label } = similarity(score);
  const meter = element.querySelector("meter");
  meter.value = value;
  meter.setAttribute("aria-label", "Similarity");
  set(element.querySelector(".similarity-label"), label);
}

function setText(element, text, label) {
  set(element, text);
  const isLong = text.length > MAX_CHARACTERS || text.split("\n", MAX_LINES + 1).length > MAX_LINES;
  if (isLong === element.classList.contains("long")) return;
  element.classList.toggle("long", isLong);
  for (const [name, value] of Object.entries({ tabindex: "0", role: "group", "aria-label": label })) {
    if (isLong) element.setAttribute(name, value);
    else element.removeAttribute(name);
  }
}

/** Sets the text only if it differs, so that a selection in it survives. */
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
