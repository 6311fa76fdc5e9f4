/** Waiting that an `AbortSignal` ends. */

/** Timers cannot take longer: after a higher number they ring at once. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

/** Returns the result of a promise. Rejects with the signal's reason as soon as it is aborted. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  let abort = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    if (signal.aborted) abort();
  });
  signal.addEventListener("abort", abort);
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

export async function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    await abortable(
      new Promise<void>((resolve) => {
        timer = setTimeout(resolve, Math.min(ms, MAX_TIMER_MS));
      }),
      signal,
    );
  } finally {
    clearTimeout(timer);
  }
}

/** Aborts `signal` when the caller's signal is aborted, or when the time is over. */
export class Timeout {
  readonly signal: AbortSignal;
  #controller = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(signal: AbortSignal | undefined) {
    this.signal = signal === undefined ? this.#controller.signal : AbortSignal.any([signal, this.#controller.signal]);
  }

  /** Starts the time, or starts it again. */
  start(ms: number): void {
    this.stop();
    const reason = new Error(`nothing was received for ${Math.round(ms / 100) / 10} s`);
    this.#timer = setTimeout(() => this.#controller.abort(reason), Math.min(ms, MAX_TIMER_MS));
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  /** Stops the time, and what still uses the signal. */
  abort(): void {
    this.stop();
    this.#controller.abort();
  }
}
