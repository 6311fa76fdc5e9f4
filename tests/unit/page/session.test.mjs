// The login that all tabs of a browser share.

import assert from "node:assert";
import { beforeEach, test } from "node:test";

let listeners, channel, stored, answer;

globalThis.addEventListener = (type, listener) => (listeners[type] = listener);
globalThis.BroadcastChannel = class {
  constructor() {
    channel = this;
    this.posted = 0;
  }
  addEventListener(type, listener) {
    this.receive = listener;
  }
  postMessage() {
    this.posted += 1;
  }
};
globalThis.fetch = async () => answer();

/** What the page uses of IndexedDB. A request ends after the script that made it. */
globalThis.indexedDB = { open: () => request(() => ({ transaction: () => transaction() })) };

function request(run) {
  const made = {};
  setImmediate(() => {
    made.result = run();
    made.onsuccess?.();
    made.oncomplete?.();
  });
  return made;
}

function transaction() {
  const steps = [];
  const done = request(() => steps.forEach((step) => step()));
  const store = {
    transaction: done,
    get: (key) => request(() => stored.get(key)),
    put: (value, key) => steps.push(() => stored.set(key, value)),
    delete: (key) => steps.push(() => stored.delete(key)),
  };
  done.objectStore = () => store;
  return done;
}

const { Session } = await import("../../../api/static/session.js");

beforeEach(() => {
  listeners = {};
  stored = new Map([["login", { username: "alice", access: "a", refresh: "r" }]]);
  answer = () => new Response("{}", { status: 401 });
});

async function resume(on = {}) {
  const session = new Session(on.expired ?? (() => {}), on.changed ?? (() => {}));
  await session.resume();
  return session;
}

test("a page that is shown again notices the logout that it has missed", async () => {
  let changes = 0;
  const session = await resume({ changed: () => (changes += 1) });
  listeners.pageshow({ persisted: false });
  await listeners.pageshow({ persisted: true });
  assert.equal(changes, 0);
  stored.clear();
  await listeners.pageshow({ persisted: true });
  assert.deepEqual([changes, session.username], [1, null]);
});

test("an expired login is no logout of the other tabs", async () => {
  const expired = [];
  const session = await resume({ expired: (name) => expired.push(name) });
  await assert.rejects(session.refresh());
  assert.deepEqual(expired, ["alice"]);
  assert.equal(session.username, null);
  assert.ok(stored.has("login"));
  assert.equal(channel.posted, 0);
  await session.logOut();
  assert.ok(!stored.has("login"));
  assert.equal(channel.posted, 1);
});

test("a tab goes on with the tokens that another one has got", async () => {
  const session = await resume();
  stored.set("login", { username: "alice", access: "b", refresh: "s" });
  await session.refresh();
  assert.equal(await session.token(), "b");
});

test("a message that comes while this tab logs out does not bring the login back", async () => {
  let changes = 0;
  const session = await resume({ changed: () => (changes += 1) });
  channel.receive();
  await session.logOut();
  await new Promise(setImmediate);
  assert.deepEqual([changes, session.username, stored.size], [0, null, 0]);
});
