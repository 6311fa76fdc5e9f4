// A question before something that cannot be undone. Escape and the first button keep everything as it is.

import { beginning } from "./words.js";

const dialog = document.getElementById("confirm");
const text = document.getElementById("confirm-text");

dialog.addEventListener("click", ({ target }) => {
  if (target.value) dialog.close(target.value);
});

/** Whether to delete the prompt with this text. */
export function confirmDeletion(promptText) {
  text.textContent = beginning(promptText);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
