// What the user does with prompts: submit, cancel, retry, delete, copy, export.

import { notify, say } from "./announce.js";
import { confirmDeletion } from "./confirm.js";
import { copy } from "./copy.js";
import { answerText } from "./format.js";

export class Actions {
  /** `on` has `submitted(prompt, began)`, `deleted(id)`, and `failed(id)`: a prompt is not as it is shown. */
  constructor(api, prompts, on) {
    Object.assign(this, { api, prompts, on });
  }

  async submit(text, key) {
    const { username } = this.api.session;
    const { time } = this.prompts;
    const prompt = await this.api.submit(text, key);
    if (this.api.session.username !== username) return;
    this.on.submitted(prompt, time);
  }

  /** Does what a button of a card says. */
  async act(name, prompt, button) {
    if (name === "copy") return copy(answerText(prompt), button, say);
    if (name === "delete") return this.#delete(prompt);
    const { time } = this.prompts;
    const card = button.closest(".card");
    // A button that is disabled loses the focus. The card gives it to the next one if it goes.
    if (button === document.activeElement) card.focus();
    button.disabled = true;
    const changed = await attempt(() => this.api[name](prompt.id));
    button.disabled = false;
    if (changed) this.prompts.put([changed], time);
    else this.on.failed(prompt.id);
  }

  async #delete({ id, prompt_text: text }) {
    if (!(await confirmDeletion(text))) return;
    const isDone = await attempt(async () => {
      await this.api.delete(id).catch(ignoreMissing);
      return true;
    });
    if (!isDone) return;
    this.prompts.remove(id);
    this.on.deleted(id);
    say(`Prompt ${id} was deleted.`);
  }

  /** Saves all prompts in a file. */
  async export(button) {
    const { username } = this.api.session;
    button.disabled = true;
    const response = await attempt(() => this.api.export());
    button.disabled = false;
    if (!response || this.api.session.username !== username) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(response.body);
    link.download = `promptwire-${new Date().toISOString().slice(0, 10)}.jsonl`;
    link.click();
    URL.revokeObjectURL(link.href);
    say("Your prompts were exported.");
  }
}

function ignoreMissing(error) {
  if (error.status !== 404) throw error;
}

/** Resolves to what `call` resolves to, or to null if it fails; a notice then shows the error. */
export async function attempt(call) {
  try {
    return await call();
  } catch (error) {
    notify(error.message);
    return null;
  }
}
