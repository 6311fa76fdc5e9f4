// The page of one prompt.

import assert from "node:assert";
import { test } from "node:test";

import { Problem } from "../../../api/static/http.js";
import { Prompts } from "../../../api/static/prompts.js";
import { SinglePrompt } from "../../../api/static/single.js";

/** The page of prompt 1, and the requests for it, each to be settled by the test. */
function open() {
  const requests = [];
  const api = { get: () => new Promise((resolve, reject) => requests.push({ resolve, reject })) };
  const prompts = new Prompts({ changed() {}, ended() {}, unknown: () => page.fetch() });
  const page = new SinglePrompt(1, api, prompts, { changed() {}, isReading: () => false });
  return { page, prompts, requests };
}

const running = { id: 1, attempt: 1, status: "processing", completed_at: null, prompt_text: "" };

test("words that come before the prompt is known cost one request", async () => {
  const { page, prompts, requests } = open();
  const loaded = page.sync();
  for (let index = 0; index < 20; index++) prompts.apply({ type: "prompt.delta", id: 1, attempt: 1, index, text: "w" });
  assert.equal(requests.length, 1);
  requests[0].resolve(running);
  await loaded;
  assert.equal(prompts.get(1).partialText, "w".repeat(20));
});

test("a prompt that one user does not have is found by the next", async () => {
  const { page, prompts, requests } = open();
  const early = page.sync();
  page.clear();
  const loaded = page.sync();
  requests[0].reject(new Problem(404, null, null));
  await early;
  requests[1].resolve(running);
  await loaded;
  assert.equal(prompts.get(1).status, "processing");
});
