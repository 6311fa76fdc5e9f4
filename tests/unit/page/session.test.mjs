// The login that all tabs of a browser share.

import assert from "node:assert";
import { beforeEach, test } from "node:test";

let listeners, stored, answer;

globalThis.addEventListener = (type, listener) => (listeners[type] = listener);
globalThis.localStorage = {
  getItem: (key) => stored.get(key) ?? null,
  setItem: (key, value) => stored.set(key, value),
  removeItem: (key) => stored.delete(key),
};
globalThis.fetch = async () => answer();

const { Session } = await import("../../../api/static/session.js");

beforeEach(() => {
  listeners = {};
  stored = new Map([["promptwire.login", JSON.stringify({ username: "alice", access: "a", refresh: "r" })]]);
  answer = () => new Response("{}", { status: 401 });
});

function resume(on = {}) {
  const session = new Session(on.expired ?? (() => {}), on.changed ?? (() => {}));
  session.resume();
  return session;
}

test("a page that is shown again notices the logout that it has missed", () => {
  let changes = 0;
  const session = resume({ changed: () => (changes += 1) });
  listeners.pageshow({ persisted: false });
  listeners.pageshow({ persisted: true });
  assert.equal(changes, 0);
  stored.clear();
  listeners.pageshow({ persisted: true });
  assert.deepEqual([changes, session.username], [1, null]);
});

test("an expired login is no logout of the other tabs", async () => {
  const expired = [];
  const session = resume({ expired: (name) => expired.push(name) });
  await assert.rejects(session.refresh());
  assert.deepEqual(expired, ["alice"]);
  assert.equal(session.username, null);
  assert.ok(stored.has("promptwire.login"));
  await session.logOut();
  assert.ok(!stored.has("promptwire.login"));
});

test("a tab goes on with the tokens that another one has got", async () => {
  const session = resume();
  stored.set("promptwire.login", JSON.stringify({ username: "alice", access: "b", refresh: "s" }));
  await session.refresh();
  assert.equal(await session.token(), "b");
});
