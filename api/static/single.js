// The page of one prompt, /p/ID: what PromptList is for the list.

import { Problem } from "./http.js";
import { isRunning } from "./prompts.js";

export class SinglePrompt {
  hasOlder = false;
  isLoaded = false;
  isBehind = false;
  #running = null; // the request for the prompt
  #version = 0; // what belongs to an earlier user is ignored

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
    this.#version += 1;
    this.#running = null;
    this.isLoaded = false;
    this.prompts.clear();
  }

  renew() {
    return this.sync();
  }

  /** As that of PromptList. */
  async joined() {
    await this.#running;
    return this.sync();
  }

  /** Fetches the prompt. Concurrent callers share one request. Resolves to whether the server answered. */
  sync() {
    const running = (this.#running ??= this.#sync().finally(() => {
      if (this.#running === running) this.#running = null;
    }));
    return running;
  }

  async #sync() {
    const version = this.#version;
    const { time } = this.prompts;
    try {
      this.prompts.put([await this.api.get(this.id)], time);
    } catch (error) {
      if (!(error instanceof Problem && error.status === 404)) return false;
      if (version === this.#version) this.prompts.remove(this.id);
    }
    if (version !== this.#version) return true;
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
