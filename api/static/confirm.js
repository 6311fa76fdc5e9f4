// The question before a deletion. Escape and the first button answer no.

import { excerpt } from "./format.js";

const dialog = document.getElementById("confirm");
const text = document.getElementById("confirm-text");
let answer = () => {};

// A button answers at once, and not in the `close` event: the browser dispatches that event some time after the dialog
// has closed, perhaps only after it was opened again.
dialog.addEventListener("click", ({ target }) => {
  if (!target.value) return;
  answer(target.value === "yes");
  dialog.close();
});
// After Escape. An event that belongs to an earlier question must not answer the open one.
dialog.addEventListener("close", () => {
  if (dialog.open) return;
  answer(false);
  // The button that has opened it may be gone: its prompt was deleted elsewhere.
  if (document.activeElement === document.body) document.getElementById("main").focus();
});

/** Takes the question back. */
export function dismiss() {
  answer(false);
  dialog.close();
  text.textContent = "";
}

/** Asks whether to delete the prompt with this text. Resolves to a boolean. */
export function confirmDeletion(promptText) {
  answer(false); // the previous question, if its `close` event is still to come
  text.textContent = excerpt(promptText);
  dialog.showModal();
  return new Promise((resolve) => {
    answer = resolve;
  });
}
