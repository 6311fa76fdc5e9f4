// The user's prompts as far as the page has seen them.
//
// Changes come from two sources, which can overtake each other: responses to the page's own requests, and events. A
// response to a request that started before an event is older than the event and is ignored. So is an event that the
// page already knows.

const RUNNING = new Set(["queued", "processing"]);
// The first deltas of a prompt can overtake the response to its submission.
const MAX_EARLY = 200;

export const isRunning = (prompt) => RUNNING.has(prompt.status);

export class Prompts {
  #known = new Map();
  #running = new Set();
  #deleted = new Set();
  #early = []; // deltas of prompts, or of attempts, that are not known yet
  #clock = 0;
  #cleared = 0;

  /**
   * `on` has `changed(id)`; `ended(prompt)`, called once for each prompt that finishes; and `unknown(id)` for a prompt
   * that must be fetched.
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

  /** The ids of the queued prompts. */
  get queued() {
    return [...this.#running].filter((id) => this.get(id).status === "queued");
  }

  /** The ids of the unfinished prompts, oldest first. */
  get unfinished() {
    return [...this.#running].sort((a, b) => a - b);
  }

  /** The present time of this logical clock. Pass it to `put` with the response of a request that starts now. */
  get time() {
    return this.#clock;
  }

  /** Removes all prompts, and ignores responses to earlier requests: the next user may be another one. */
  clear() {
    const ids = [...this.#known.keys()];
    this.#known.clear();
    this.#running.clear();
    this.#deleted.clear();
    this.#early = [];
    this.#cleared = ++this.#clock;
    for (const id of ids) this.on.changed(id);
  }

  /** Stores the prompts of a response to a request that started at `began`. */
  put(resources, began) {
    for (const resource of resources) this.#put(resource, began);
  }

  /** Stores the newest prompts. Known prompts in their range that are not among them were deleted elsewhere. */
  replace(resources, began, isAll) {
    this.put(resources, began);
    const ids = new Set(resources.map(({ id }) => id));
    const oldest = isAll ? 0 : Math.min(...ids);
    for (const { id, changed } of [...this.#known.values()]) {
      if (id >= oldest && !ids.has(id) && changed <= began) this.#drop(id);
    }
  }

  remove(id) {
    this.#deleted.add(id);
    this.#drop(id);
  }

  /** Forgets the prompts older than this one, to fetch them again when they are shown. */
  forget(oldest) {
    for (const id of [...this.#known.keys()]) if (id < oldest) this.#drop(id);
  }

  /** Applies an event about a prompt. */
  apply(event) {
    if (event.type === "prompt.deleted") this.remove(event.id);
    else if (this.#deleted.has(event.id)) return;
    else if (event.type === "prompt.delta") this.#append(event);
    else this.#finish(event);
  }

  #put(resource, began) {
    const known = this.#known.get(resource.id);
    if (began < this.#cleared || this.#deleted.has(resource.id) || (known && known.changed > began)) return;
    // The attempt that generates text now, or next.
    const attempt = resource.attempt + (resource.status === "queued" ? 1 : 0);
    const isSameAttempt = known && isRunning(resource) && known.attempt >= attempt;
    const text = isSameAttempt ? { ...partialOf(known), attempt: known.attempt } : { ...NO_TEXT, attempt };
    const endedAt = resource.completed_at ?? known?.endedAt ?? "";
    this.#set({ ...resource, ...text, ...keptOf(known, resource), endedAt });
    if (known && isRunning(known) && !isRunning(resource)) this.on.ended(resource);
    this.#takeEarly(resource.id).forEach((event) => this.#append(event));
  }

  /** Removes and returns the deltas of a prompt that came too early. */
  #takeEarly(id) {
    const taken = this.#early.filter((event) => event.id === id);
    if (taken.length > 0) this.#early = this.#early.filter((event) => event.id !== id);
    return taken;
  }

  #append(event) {
    const { id, attempt, index, text } = event;
    const known = this.#known.get(id);
    if (!known || (!isRunning(known) && attempt > known.attempt)) {
      this.#early.push(event);
      if (this.#early.length > MAX_EARLY) this.#early.shift();
      return this.on.unknown(id);
    }
    if (!isRunning(known) || attempt < known.attempt) return;
    const partial = attempt > known.attempt ? NO_TEXT : partialOf(known);
    if (index < partial.nextIndex || partial.hasGap) return;
    const appended =
      index === partial.nextIndex
        ? { partialText: partial.partialText + text, nextIndex: index + 1 }
        : { hasGap: true };
    this.#set({ ...known, status: "processing", attempt, ...partial, ...appended });
  }

  #finish(event) {
    const known = this.#known.get(event.id);
    if (known && event.completed_at <= known.endedAt) return;
    const { id, prompt_text, response_text, tool_calls, finish_reason, status, created_at, completed_at } = event;
    const error = event.error ?? null;
    const ended = { id, prompt_text, response_text, tool_calls, finish_reason, status, created_at, completed_at, error };
    this.#takeEarly(id);
    this.#set({ attempt: known?.attempt ?? 1, ...ended, ...NO_TEXT, ...keptOf(known, ended), endedAt: completed_at });
    this.on.ended(ended);
  }

  #set(prompt) {
    this.#known.set(prompt.id, { ...prompt, changed: ++this.#clock });
    if (isRunning(prompt)) this.#running.add(prompt.id);
    else this.#running.delete(prompt.id);
    this.on.changed(prompt.id);
  }

  #drop(id) {
    this.#running.delete(id);
    if (this.#known.delete(id)) this.on.changed(id);
  }
}

/** The partial text of an attempt: the text so far, the index of the next delta, and whether a delta was missed. */
const NO_TEXT = { partialText: "", nextIndex: 0, hasGap: false };

const partialOf = ({ partialText, nextIndex, hasGap }) => ({ partialText, nextIndex, hasGap });

/** The partial text of a cancelled or failed prompt. The API does not keep it, but a user who has seen it may need it. */
function keptOf(known, { status }) {
  if (status !== "cancelled" && status !== "failed") return {};
  return { keptText: known?.partialText || known?.keptText || "", hasGap: known?.hasGap ?? false };
}
