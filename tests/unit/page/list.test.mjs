// Which prompts the list knows, whatever order responses come in.

import assert from "node:assert";
import { test } from "node:test";

import { Api } from "../../../api/static/api.js";
import { PromptList } from "../../../api/static/list.js";
import { Prompts } from "../../../api/static/prompts.js";

/** A session whose server has the prompts 1 to `newest`. The requests for which `holds` is true wait for `release()`. */
class PlayedSession {
  requests = [];
  holds = () => false;
  #held = [];

  constructor(newest) {
    this.newest = newest;
  }

  async send(method, path) {
    this.requests.push(path);
    const response = this.#respond(path);
    if (this.holds(path)) await new Promise((resolve) => this.#held.push(resolve));
    return response;
  }

  release() {
    this.holds = () => false;
    this.#held.splice(0).forEach((resolve) => resolve());
  }

  #respond(path) {
    const [where, query] = path.split("?");
    const id = /^prompts\/(\d+)\/$/.exec(where);
    if (id) return { body: resource(Number(id[1])), headers: new Headers() };
    const asked = new URLSearchParams(query);
    const limit = Number(asked.get("limit"));
    const before = Number(asked.get("cursor") ?? this.newest + 1);
    const body = Array.from({ length: Math.min(limit, before - 1) }, (_, index) => resource(before - 1 - index));
    const last = body.at(-1)?.id ?? 1;
    const link = `</prompts/?limit=${limit}&cursor=${last}>; rel="next"`;
    return { body, headers: new Headers(last > 1 ? { Link: link } : {}) };
  }
}

const resource = (id) => ({ id, attempt: 1, status: "completed", completed_at: `t${id}`, prompt_text: "", error: null });

function listOf(session) {
  const prompts = new Prompts({ changed() {}, ended() {}, unknown() {} });
  return new PromptList(new Api(session), prompts, { changed() {}, isReading: () => false });
}

/** The ids of the known prompts, from the newest on. */
const known = (list, from) => Array.from({ length: from }, (_, index) => from - index).filter((id) => list.prompts.get(id));

test("older prompts that come after the list began anew leave no hole in it", async () => {
  const session = new PlayedSession(60);
  const list = listOf(session);
  await list.sync();
  session.holds = (path) => path.includes("cursor=41");
  const older = list.older();
  session.newest = 2_000; // a batch: the list begins anew at its newest prompts
  await list.sync();
  session.release();
  await older;
  assert.equal(list.prompts.get(40), undefined);
  const before = known(list, 2_000);
  await list.older();
  const ids = known(list, 2_000);
  assert.equal(ids.length, before.length + 100);
  assert.equal(ids[0] - ids.at(-1), ids.length - 1);
});

test("what is fetched after joining was not asked for before", async () => {
  const session = new PlayedSession(1);
  const list = listOf(session);
  session.holds = () => session.requests.length === 1;
  const early = list.sync();
  const joined = list.joined();
  session.newest = 2; // no event reports it: it ended before the page joined, and after that request was answered
  session.release();
  await Promise.all([early, joined]);
  assert.deepEqual(known(list, 2), [2, 1]);
});

test("a large search goes on with as many results as were asked for", async () => {
  const asked = [];
  const link = '</prompts/similar/?prompt=limit%3D7&mode=vector&limit=10&cursor=c>; rel="next"';
  const send = async (method, path) => {
    asked.push(path);
    return { body: [resource(asked.length)], headers: new Headers(asked.length === 1 ? { Link: link } : {}) };
  };
  const found = await new Api({ send }).similar("limit=7", { mode: "vector", limit: 10 });
  assert.deepEqual(found.map(({ id }) => id), [1, 2]);
  assert.equal(asked[1], "prompts/similar/?prompt=limit%3D7&mode=vector&limit=10&cursor=c");
});
