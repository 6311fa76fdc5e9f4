// The question before a change. Escape and the first button answer no.

const dialog = document.getElementById("confirm");
const reason = document.getElementById("confirm-reason");
const field = reason.querySelector("input");
let answer = () => {};

dialog.addEventListener("click", ({ target }) => {
  if (!target.value || target.tagName !== "BUTTON") return;
  answer(target.value === "yes" ? { reason: field.value.trim() } : null);
  dialog.close();
});
// Enter in the field means yes. By default it would then press the button that has the focus after the dialog.
field.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  document.getElementById("confirm-yes").click();
});
dialog.addEventListener("close", () => {
  if (dialog.open) return;
  answer(null);
  // The button that has opened it may be gone: its row is not shown any more.
  if (document.activeElement === document.body) document.getElementById("main").focus();
});

/** Asks. Resolves to `{ reason }`, or to null if the answer is no. `isDanger` colours the button. */
export function ask({ title, text, yes, asksReason = false, isDanger = false }) {
  answer(null);
  document.getElementById("confirm-title").textContent = title;
  document.getElementById("confirm-text").textContent = text;
  const button = document.getElementById("confirm-yes");
  button.textContent = yes;
  button.className = isDanger ? "danger" : "primary";
  reason.hidden = !asksReason;
  field.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    answer = resolve;
  });
}
