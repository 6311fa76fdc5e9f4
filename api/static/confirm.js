// A question before something that cannot be undone. Escape and the first button keep everything as it is.

import { beginning } from "./format.js";

const dialog = document.getElementById("confirm");
const text = document.getElementById("confirm-text");
let answer = () => {};

dialog.addEventListener("click", ({ target }) => {
  if (target.value) dialog.close(target.value);
});
// The browser dispatches `close` some time after the dialog has closed: perhaps only after it was opened again, and
// then the event does not belong to the question that is open.
dialog.addEventListener("close", () => {
  if (!dialog.open) answer(dialog.returnValue === "yes");
});

/** Whether to delete the prompt with this text. */
export function confirmDeletion(promptText) {
  answer(false); // the question before, if its `close` is still to come
  text.textContent = beginning(promptText);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    answer = resolve;
  });
}
