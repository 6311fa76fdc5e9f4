// The content of one card. Texts of users are inserted as text; answers become elements in markdown.js.

import { answerText, cutOffNote, nextTry, place, similarity, timeAgo, toolCalls } from "./format.js";
import { address } from "./http.js";
import { colour, render } from "./markdown.js";
import { isRunning } from "./prompts.js";

const STATUS = {
  queued: "Queued",
  processing: "Answering",
  completed: "Answered",
  failed: "Failed",
  cancelled: "Cancelled",
};
const EMPTIED = "The texts of this prompt were removed because of its age.";
// Of longer texts only the beginning is shown, until the user presses "Show more".
const MAX_CHARACTERS = 1_800;
const MAX_LINES = 24;

const template = document.getElementById("card-content");
const rendered = new WeakMap(); // the Markdown that an element shows

/** Fills a card with a prompt. `expanded` has the names of the texts that are shown as a whole, "prompt" and "answer". */
export function fill(card, prompt, expanded) {
  if (!card.firstElementChild) card.append(template.content.cloneNode(true));
  const find = (selector) => card.querySelector(selector);
  const status = prompt.status ?? "completed";
  const running = isRunning({ status });
  card.dataset.status = status;
  card.setAttribute("aria-busy", String(running));
  set(find(".status"), STATUS[status] + (status === "queued" && prompt.position ? `, ${place(prompt.position)}` : ""));
  fillSimilarity(find(".similarity"), prompt.similarity_score);
  fillTime(find(".permalink"), prompt);

  set(find(".prompt"), prompt.emptied_at ? EMPTIED : prompt.prompt_text);
  // Text that arrives is shown as it is: parsing it again with each word would cost more than it is worth.
  const partial = (running ? prompt.partialText : prompt.keptText) ?? "";
  const answer = partial + (partial && prompt.hasGap ? " …" : "") || prompt.response_text || "";
  fillAnswer(find(".answer"), answer, !partial);
  show(find(".calls"), toolCalls(prompt));
  clamp(card, "prompt", prompt.prompt_text, expanded);
  clamp(card, "answer", answer, expanded);
  show(find(".cut-off"), cutOffNote(prompt));
  fillWaiting(find(".waiting"), status === "queued" && prompt.waiting_for);
  show(find(".error"), status === "cancelled" ? "" : (prompt.error ?? ""));

  const canRetry = (status === "failed" || status === "cancelled") && !prompt.emptied_at;
  const canCopy = status === "completed" && answerText(prompt) !== "";
  const actions = { copy: canCopy, cancel: running, retry: canRetry, delete: true };
  for (const button of card.querySelectorAll("button[data-action]")) {
    const { action } = button.dataset;
    if (!actions[action] && button === document.activeElement) card.focus();
    button.hidden = !actions[action];
    const object = action === "copy" ? `the answer to prompt ${prompt.id}` : `prompt ${prompt.id}`;
    button.setAttribute("aria-label", `${button.textContent} ${object}`);
  }
}

/** Updates what depends on the present time. */
export function updateTimes(list) {
  for (const time of list.querySelectorAll("time")) set(time, timeAgo(time.dateTime));
}

/** Updates how long prompts still wait for their provider. */
export function updateWaiting(list) {
  for (const element of list.querySelectorAll(".waiting:not([hidden])")) set(element, nextTry(element.dataset));
}

function fillTime(link, { id, created_at: at }) {
  const time = link.firstElementChild;
  link.href = address(`p/${id}`);
  link.setAttribute("aria-label", `Link to prompt ${id}`);
  time.dateTime = at;
  time.title = new Date(at).toLocaleString();
  set(time, timeAgo(at));
}

function fillSimilarity(element, score) {
  element.hidden = (score ?? null) === null;
  if (element.hidden) return;
  const { value, label } = similarity(score);
  const meter = element.querySelector("meter");
  meter.value = value;
  meter.setAttribute("aria-label", "Similarity");
  set(element.querySelector(".similarity-label"), label);
}

function fillAnswer(element, text, isMarkdown) {
  element.hidden = !text;
  if (isMarkdown && rendered.get(element) === text) return;
  const content = isMarkdown && text ? render(text) : null;
  element.classList.toggle("text", !content);
  if (isMarkdown) rendered.set(element, text);
  else rendered.delete(element);
  if (!content) return append(element, text);
  element.replaceChildren(content);
  colour(element);
}

function fillWaiting(element, waiting) {
  element.hidden = !waiting;
  if (!waiting) return;
  Object.assign(element.dataset, { detail: waiting.detail, at: waiting.next_attempt_at ?? "" });
  set(element, nextTry(element.dataset));
}

function clamp(card, name, text, expanded) {
  const isLong = text.length > MAX_CHARACTERS || text.split("\n", MAX_LINES + 1).length > MAX_LINES;
  const button = card.querySelector(`[data-expand="${name}"]`);
  button.hidden = !isLong || isRunning({ status: card.dataset.status });
  const isOpen = expanded.has(name) || button.hidden;
  button.setAttribute("aria-expanded", String(isOpen));
  set(button, isOpen ? "Show less" : "Show more");
  button.setAttribute("aria-label", `${button.textContent} of the ${name}`);
  card.querySelector(`.${name}`).classList.toggle("clamped", !isOpen);
}

function show(element, text) {
  set(element, text);
  element.hidden = !text;
}

/** Sets the text only if it differs, so that a selection in it survives. */
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets a text that mostly grows: only what is new is added. */
function append(element, text) {
  const node = element.firstChild;
  const isText = element.childNodes.length === 1 && node.nodeType === Node.TEXT_NODE;
  if (isText && text.startsWith(node.data)) node.appendData(text.slice(node.length));
  else set(element, text);
}
