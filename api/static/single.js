// The page of one prompt, /p/ID: what PromptList is for the list.

import { Problem } from "./http.js";
import { isRunning } from "./prompts.js";

export class SinglePrompt {
  hasOlder = false;
  isLoaded = false;
  isBehind = false;

  constructor(id, api, prompts, on) {
    Object.assign(this, { id, api, prompts, on });
  }

  shows({ id }) {
    return id === this.id;
  }

  accepts({ id }) {
    return id === this.id;
  }

  clear() {
    this.isLoaded = false;
    this.prompts.clear();
  }

  renew() {
    return this.sync();
  }

  /** Fetches the prompt. Resolves to whether the server answered. */
  async sync() {
    const { time } = this.prompts;
    try {
      this.prompts.put([await this.api.get(this.id)], time);
    } catch (error) {
      if (!(error instanceof Problem && error.status === 404)) return false;
      this.prompts.remove(this.id);
    }
    this.isLoaded = true;
    this.on.changed();
    return true;
  }

  poll() {
    return this.sync();
  }

  async probe() {}

  async refreshQueued() {
    const prompt = this.prompts.get(this.id);
    if (prompt && isRunning(prompt) && prompt.status === "queued") await this.sync();
  }

  fetch() {
    return this.sync();
  }
}
