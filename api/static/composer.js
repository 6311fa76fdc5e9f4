// The form for writing and submitting a prompt. The text stays until the API has accepted it.

import { Problem, Unreachable } from "./http.js";
import { seconds } from "./format.js";

const NO_ATTEMPT = { text: null, key: null };
const EMPTY = "Write a prompt first.";

const form = document.getElementById("composer");
const field = document.getElementById("prompt-text");
const button = document.getElementById("submit");
const message = document.getElementById("composer-error");

let attempt = NO_ATTEMPT; // the last text and its idempotency key
let sending = null; // the attempt that waits for a response
let timer = null;
let isUnreachable = false; // whether the message says so

/** `submit(text, key)` resolves once the API has the prompt. Until then the same text is sent with the same key. */
export function init(submit) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = field.value;
    if (sending || button.disabled) return field.focus();
    if (!text.trim()) return ask();
    if (attempt.text !== text) attempt = { text, key: newKey() };
    const own = (sending = attempt);
    message.textContent = "";
    let error = null;
    try {
      await submit(text, own.key);
    } catch (caught) {
      error = caught;
    }
    if (sending !== own) return; // the form was cleared, and may be another user's
    sending = null;
    if (error) return explain(error);
    attempt = NO_ATTEMPT;
    if (field.value === text) field.value = "";
  });

  field.addEventListener("input", () => {
    if (message.textContent === EMPTY) message.textContent = "";
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    form.requestSubmit();
  });
}

export function focus() {
  field.focus();
}

/** Empties the form, and ignores the response to what it has sent. */
export function clear() {
  attempt = NO_ATTEMPT;
  sending = null;
  field.value = "";
  disableUntil(0);
}

/** Whether the user has written something that was not submitted yet. */
export function isInUse() {
  return field.value !== "" && document.activeElement === field;
}

/** The server answers again: removes a message that says otherwise. */
export function reachable() {
  if (isUnreachable) message.textContent = "";
  isUnreachable = false;
}

function ask() {
  message.textContent = EMPTY;
  field.focus();
}

function explain(error) {
  isUnreachable = error instanceof Unreachable;
  const wait = error instanceof Problem && (error.status === 429 || error.status === 503) && error.retryAfter;
  if (!wait) {
    message.textContent = error.message;
    return;
  }
  const reason = error.status === 429 ? "You have submitted too many prompts." : error.message;
  message.textContent = `${reason} You can submit again in ${wait} s. Your text stays here.`;
  disableUntil(Date.now() + wait * 1000);
}

/** Disables the button until a time, and shows how long that is. */
function disableUntil(time) {
  clearTimeout(timer);
  const left = time - Date.now();
  button.disabled = left > 0;
  button.textContent = left > 0 ? `Wait ${seconds(left)}` : "Submit";
  if (left > 0) timer = setTimeout(() => disableUntil(time), Math.min(left, 250));
  else message.textContent = "";
}

/** A random key. (crypto.randomUUID() is missing on pages served over plain HTTP from another machine.) */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}
