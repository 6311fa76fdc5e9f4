// Copying: whole answers, as their Markdown, and blocks of code.

const SHOWN = 2_000; // milliseconds

/** Copies the code beside a pressed button. `say` announces it to screen readers. */
export function init(say) {
  document.addEventListener("click", ({ target }) => {
    const button = target.closest("button[data-copy]");
    if (button) copy(button.parentElement.querySelector("pre").textContent.replace(/\n$/, ""), button, say);
  });
}

/** Copies a text, and shows that in the pressed button. */
export async function copy(text, button, say) {
  const isDone = await write(text);
  const label = button.textContent;
  if (label === "Copy") {
    button.textContent = isDone ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = label), SHOWN);
  }
  say(isDone ? "Copied." : "The browser does not let this page copy.");
}

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return writeBySelection(text);
  }
}

/** The clipboard is missing on pages served over plain HTTP from another machine. */
function writeBySelection(text) {
  const focused = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "visually-hidden";
  document.body.append(field);
  field.select();
  const isDone = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return isDone;
}
