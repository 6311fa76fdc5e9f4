// The part of the user's prompts that the page knows: all from the oldest that it has fetched to the newest. It has no
// gaps, so events about other prompts can be left out: they are fetched when the user gets there.

// At most this many pages are fetched to close the gap to the known prompts: a batch adds ten thousand prompts at once.
const MAX_PAGES = 3;
// A poll, and each change of positions, fetches this many prompts one by one.
const MAX_FETCHED = 5;
const SYNC_INTERVAL = 1_000; // milliseconds

export class PromptList {
  status = ""; // the filter
  isLoaded = false;
  #newest = 0;
  #oldest = 0;
  #next = null;
  #isBehind = false;
  #running = null; // the request for newer prompts
  #version = 0; // changes with the filter and the user; responses to earlier requests are ignored
  #fetching = new Set(); // ids
  #timer = null;
  #isWanted = false;

  /**
   * `on` has `changed()`, called when there is something else to fetch, and `isReading()`, which says whether the user
   * is among older prompts, which then must not be replaced.
   */
  constructor(api, prompts, on) {
    Object.assign(this, { api, prompts, on });
  }

  get hasOlder() {
    return this.#next !== null;
  }

  /** Whether there are too many newer prompts to add: the list would have to restart. */
  get isBehind() {
    return this.#isBehind;
  }

  shows(prompt) {
    return !this.status || prompt.status === this.status;
  }

  clear() {
    this.#forgetRange();
    this.isLoaded = false;
    this.prompts.clear();
  }

  #forgetRange() {
    this.#version += 1;
    this.#newest = this.#oldest = 0;
    this.#next = this.#running = null;
    this.#isBehind = false;
  }

  /** Whether an event is about a prompt that is known, or belongs among those that are. */
  accepts({ type, id, status }) {
    if (this.prompts.get(id) || type === "prompt.deleted") return true;
    if (id < this.#oldest || this.#isBehind) return false;
    if (id > this.#newest) this.#syncSoon();
    return type === "prompt.delta" || this.shows({ status });
  }

  /** Shows the newest prompts of a status, or of all. */
  filter(status) {
    this.status = status;
    this.clear();
    return this.sync();
  }

  /** Fetches the newest prompts again, because events may have been missed. */
  renew() {
    this.#forgetRange();
    return this.sync();
  }

  /** Fetches what is newer than the list. Concurrent callers share one request. Resolves to whether the server answered. */
  sync() {
    if (this.#isBehind && this.on.isReading()) return Promise.resolve(true);
    const running = (this.#running ??= this.#sync().finally(() => {
      if (this.#running === running) this.#running = null;
    }));
    return running;
  }

  /** Events are reported from now on: fetches what came before, by a request that did not begin earlier. */
  async joined() {
    await this.#running;
    return this.sync();
  }

  /** Events come faster than lists can be fetched. */
  #syncSoon() {
    this.#isWanted = this.#timer !== null;
    if (this.#isWanted) return;
    this.sync();
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.#isWanted) this.#syncSoon();
    }, SYNC_INTERVAL);
  }

  async #sync() {
    const version = this.#version;
    const { time } = this.prompts;
    const found = [];
    let page;
    try {
      page = await this.api.newest(this.status);
      found.push(...page.prompts);
      for (let count = 1; this.#isGap(page) && count < MAX_PAGES; count++) {
        page = await this.api.older(page.next);
        found.push(...page.prompts);
      }
    } catch {
      return false; // the state of the connection is shown
    }
    if (version !== this.#version) return true;
    this.isLoaded = true;
    const isGap = this.#isGap(page);
    this.#isBehind = isGap && this.on.isReading();
    if (!this.#isBehind) {
      this.prompts.replace(found, time, page.next === null);
      if (isGap || this.#newest === 0) this.#beginAt(page);
      this.#newest = Math.max(this.#newest, found[0]?.id ?? 0);
    }
    this.on.changed();
    return true;
  }

  #isGap({ prompts, next }) {
    return next !== null && this.#newest > 0 && prompts.at(-1).id > this.#newest;
  }

  #beginAt({ prompts, next }) {
    this.#version += 1; // older prompts that are being fetched are not the next ones any more
    this.#next = next;
    this.#oldest = next === null ? 0 : prompts.at(-1).id;
    this.prompts.forget(this.#oldest);
  }

  /** Fetches newer prompts if there are any: asks for one, which costs the server next to nothing. */
  async probe() {
    const { prompts } = await this.api.newest(this.status, 1).catch(() => ({ prompts: [] }));
    if (prompts[0]?.id > this.#newest) await this.sync();
  }

  /** Fetches the next older prompts. */
  async older() {
    const version = this.#version;
    const { time } = this.prompts;
    const page = await this.api.older(this.#next);
    if (version !== this.#version) return;
    this.prompts.put(page.prompts, time);
    this.#next = page.next;
    this.#oldest = page.next === null ? 0 : page.prompts.at(-1).id;
    this.on.changed();
  }

  /** Fetches what events would have reported. Resolves to whether the server answered. */
  async poll() {
    if (!(await this.sync())) return false;
    this.prompts.unfinished.slice(0, MAX_FETCHED).forEach((id) => this.fetch(id));
    return true;
  }

  /** Fetches a prompt of which an event has said too little: another tab has submitted or retried it. */
  async fetch(id) {
    if (this.#fetching.has(id) || id < this.#oldest || this.#isBehind) return;
    this.#fetching.add(id);
    const { time } = this.prompts;
    try {
      this.prompts.put([await this.api.get(id)], time);
    } catch {
      // The prompt was deleted, or the server is unavailable. In both cases an event or a reload follows.
    } finally {
      this.#fetching.delete(id);
    }
  }

  /** Fetches the positions of queued prompts, and why they wait; no event reports them. */
  async refreshQueued() {
    const { queued, time } = this.prompts;
    if (queued.length === 0) return;
    const version = this.#version;
    const page = await this.api.queued().catch(() => null);
    if (!page || version !== this.#version) return;
    const shown = page.prompts.filter(({ id }) => this.prompts.get(id));
    this.prompts.put(shown, time);
    const ids = new Set(shown.map(({ id }) => id));
    if (page.next === null) queued.filter((id) => !ids.has(id)).slice(0, MAX_FETCHED).forEach((id) => this.fetch(id));
  }
}
