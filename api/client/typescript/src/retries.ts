/** The delays between attempts: what the server's `Retry-After` says, else exponential back-off with jitter. */

import { sleep } from "./abort.js";
import { type ClientError } from "./errors.js";

const FIRST_DELAY_MS = 250;
const MAX_DELAY_MS = 5_000;

/** How long to keep trying, and how often to retry. A retry at a time that the server named does not count. */
export interface RetryLimits {
  timeoutMs: number;
  retries: number;
}

export const UNLIMITED: RetryLimits = { timeoutMs: Infinity, retries: Infinity };

/** The retries of one call. `extraMs` extend the time limit of a call that is meant to take long. */
export class Retries {
  #left: number;
  #deadline: number;
  #nextDelay = FIRST_DELAY_MS;

  constructor(limits: RetryLimits, extraMs = 0) {
    this.#left = limits.retries;
    this.#deadline = performance.now() + limits.timeoutMs + extraMs;
  }

  get msLeft(): number {
    return this.#deadline - performance.now();
  }

  /** Waits until the next attempt. Throws the failure if no attempt is left. */
  async wait(failure: ClientError, signal?: AbortSignal): Promise<void> {
    const jitter = this.#nextDelay * (0.5 + Math.random() / 2);
    let delay: number;
    if (failure.retryAfterMs === undefined) {
      this.#left -= 1;
      delay = jitter;
      this.#nextDelay = Math.min(this.#nextDelay * 2, MAX_DELAY_MS);
    } else {
      delay = failure.retryAfterMs + Math.min(jitter, 500);
    }
    if (this.#left < 0 || delay > this.msLeft) throw failure;
    await sleep(delay, signal);
  }
}
