// Asks for changes at growing intervals, while there is no socket that reports them.

// In milliseconds.
const MIN_INTERVAL = 1_000;
const MAX_INTERVAL = 20_000;
const GROWTH = 1.5;

export class Polling {
  #timer = null;
  #interval = MIN_INTERVAL;
  #isOn = false;
  #isBusy = false;

  /**
   * `on` has three functions. `poll()` resolves to whether the server answered. `isWaiting()` says whether changes are
   * expected soon; otherwise the interval is the longest. `done(hasAnswered)` is called after each poll.
   */
  constructor(on) {
    this.on = on;
  }

  get isOn() {
    return this.#isOn;
  }

  /** Polls now, and from now on. */
  start() {
    if (this.#isOn) return;
    this.#isOn = true;
    this.soon();
  }

  stop() {
    this.#isOn = false;
    clearTimeout(this.#timer);
  }

  /** Polls now, and begins with short intervals again: the user came back, or has changed something. */
  soon() {
    this.#interval = MIN_INTERVAL;
    if (this.#isOn && !this.#isBusy) this.#poll();
  }

  async #poll() {
    clearTimeout(this.#timer);
    if (document.hidden) return; // until it is shown again, and `soon` is called
    this.#isBusy = true;
    const hasAnswered = await this.on.poll();
    this.#isBusy = false;
    if (!this.#isOn) return;
    this.on.done(hasAnswered);
    const interval = hasAnswered && this.on.isWaiting() ? this.#interval : MAX_INTERVAL;
    this.#interval = Math.min(this.#interval * GROWTH, MAX_INTERVAL);
    this.#timer = setTimeout(() => this.#poll(), interval * (0.75 + Math.random() / 2));
  }
}
