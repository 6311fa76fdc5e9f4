// What the page knows of the user's prompts.
//
// It hears of them in two ways, which may overtake each other: answers to its own requests, and events. An answer to a
// request that began before an event says less than the event, and is passed over; so is an event that is not news.

const RUNNING = new Set(["queued", "processing"]);

export const isRunning = (prompt) => RUNNING.has(prompt.status);

export class Prompts {
  #known = new Map();
  #deleted = new Set();
  #clock = 0;
  #cleared = 0;

  /**
   * `on` has `changed(id)`; `ended(prompt)`, called once for each end that is news; and `unknown(id)` for a prompt that
   * must be looked up.
   */
  constructor(on) {
    this.on = on;
  }

  get(id) {
    return this.#known.get(id);
  }

  get size() {
    return this.#known.size;
  }

  /** The time by this clock: what a request that begins now is told with its answer. */
  get time() {
    return this.#clock;
  }

  /** Forgets all, also what is still to be answered: it may be another user's. */
  clear() {
    const ids = [...this.#known.keys()];
    this.#known.clear();
    this.#deleted.clear();
    this.#cleared = ++this.#clock;
    for (const id of ids) this.on.changed(id);
  }

  /** Takes in prompts from the answer to a request that began at `began`. */
  put(resources, began) {
    for (const resource of resources) this.#put(resource, began);
  }

  /** The same with the newest ones: what was known in their range and is not among them has been deleted elsewhere. */
  replace(resources, began, isAll) {
    this.put(resources, began);
    const found = new Set(resources.map(({ id }) => id));
    const oldest = isAll ? 0 : Math.min(...found);
    for (const { id, changed } of [...this.#known.values()]) {
      if (id >= oldest && !found.has(id) && changed <= began) this.#drop(id);
    }
  }

  remove(id) {
    this.#deleted.add(id);
    this.#drop(id);
  }

  /** Takes in an event. */
  hear(event) {
    if (this.#deleted.has(event.id)) return;
    if (event.type === "prompt.delta") this.#grow(event);
    else this.#end(event);
  }

  #put(resource, began) {
    const known = this.#known.get(resource.id);
    if (began < this.#cleared || this.#deleted.has(resource.id) || (known && known.changed > began)) return;
    // The attempt whose text arrives or is to come.
    const attempt = resource.attempt + (resource.status === "queued" ? 1 : 0);
    const isGoingOn = known && isRunning(resource) && known.attempt >= attempt;
    const text = isGoingOn ? { ...arrivedOf(known), attempt: known.attempt } : { ...NOTHING, attempt };
    this.#set({ ...resource, ...text, endedAt: resource.completed_at ?? known?.endedAt ?? "" });
    if (known && isRunning(known) && !isRunning(resource)) this.on.ended(resource);
  }

  #grow({ id, attempt, index, text }) {
    const known = this.#known.get(id);
    if (!known || (!isRunning(known) && attempt > known.attempt)) return this.on.unknown(id);
    if (!isRunning(known) || attempt < known.attempt) return;
    const so = attempt > known.attempt ? NOTHING : arrivedOf(known);
    if (index < so.next || so.hasGap) return;
    const grown = index === so.next ? { arrived: so.arrived + text, next: index + 1 } : { hasGap: true };
    this.#set({ ...known, status: "processing", attempt, ...so, ...grown });
  }

  #end(event) {
    const known = this.#known.get(event.id);
    if (known && event.completed_at <= known.endedAt) return;
    const { id, prompt_text, response_text, status, created_at, completed_at } = event;
    const ended = { id, prompt_text, response_text, status, created_at, completed_at, error: event.error ?? null };
    this.#set({ attempt: known?.attempt ?? 1, ...ended, ...NOTHING, endedAt: completed_at });
    this.on.ended(ended);
  }

  #set(prompt) {
    this.#known.set(prompt.id, { ...prompt, changed: ++this.#clock });
    this.on.changed(prompt.id);
  }

  #drop(id) {
    if (this.#known.delete(id)) this.on.changed(id);
  }
}

/** The text of an attempt that arrives: as far as it has, which part is next, and whether one was missed. */
const NOTHING = { arrived: "", next: 0, hasGap: false };

const arrivedOf = ({ arrived, next, hasGap }) => ({ arrived, next, hasGap });
