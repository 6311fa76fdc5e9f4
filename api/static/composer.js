// Where a prompt is written and submitted. What was written is kept until the API has it.

import { Problem } from "./http.js";
import { seconds } from "./format.js";

const form = document.getElementById("composer");
const field = document.getElementById("prompt-text");
const button = document.getElementById("submit");
const trouble = document.getElementById("composer-trouble");

/** `submit(text, key)` resolves once the API has the prompt; the same text has the same key until then. */
export function init(submit) {
  let sending = false;
  let attempt = { text: null, key: null };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = field.value;
    if (sending || button.disabled || !text.trim()) return field.focus();
    if (attempt.text !== text) attempt = { text, key: newKey() };
    sending = true;
    trouble.textContent = "";
    try {
      await submit(text, attempt.key);
      attempt = { text: null, key: null };
      if (field.value === text) field.value = "";
    } catch (error) {
      explain(error);
    } finally {
      sending = false;
    }
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

export function clear() {
  field.value = "";
  trouble.textContent = "";
}

function explain(error) {
  const wait = error instanceof Problem && (error.status === 429 || error.status === 503) && error.retryAfter;
  if (!wait) {
    trouble.textContent = error.message;
    return;
  }
  const why = error.status === 429 ? "That was one too many for now." : error.message;
  trouble.textContent = `${why} You can submit again in ${wait} s; your text stays here.`;
  hold(Date.now() + wait * 1000);
}

/** Keeps the button from being pressed in vain. */
function hold(until) {
  const left = until - Date.now();
  button.disabled = left > 0;
  button.textContent = left > 0 ? `Wait ${seconds(left)}` : "Submit";
  if (left > 0) setTimeout(() => hold(until), Math.min(left, 250));
  else trouble.textContent = "";
}

/** Not crypto.randomUUID(), which plain http on another machine does not have. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}
