/** Prompts: submitting, waiting, changing, listing, searching. */

import { Client, ProblemError, UnreachableError } from "promptwire";

import { type Case, PASSWORD, check, equal, fetching, newName, newUser, rejects, take } from "./stack.js";

/** Fails, and is tried again, until there is this file. */
const UNFINISHED = "fail-until /nowhere";

const cases: Record<string, Case> = {
  async "a prompt is submitted with all that it may ask for"(stack) {
    const client = await newUser(stack);
    const json_schema = { name: "tides", schema: { type: "object", properties: { cause: { const: "the moon" } } } };
    const request = {
      model: "default",
      instructions: "Be brief.",
      messages: [
        { role: "user", content: "Hello" },
        { role: "assistant", content: "Hello!" },
      ],
      temperature: 0.5,
      top_p: 0.9,
      max_output_tokens: 500,
      stop: ["END"],
      seed: 7,
      response_format: { type: "json_schema", json_schema },
    } as const;
    const options = { ...request, history: 0, priority: "low", metadata: { topic: "tides" }, cache: false } as const;
    const submitted = await client.submit("What causes tides?", options);
    equal([submitted.websocket, submitted.priority, submitted.metadata], [true, "low", { topic: "tides" }]);
    const prompt = await client.wait(submitted.id);
    equal(prompt.status, "completed");
    check(typeof JSON.parse(prompt.response_text!) === "object", prompt.response_text!);
    for (const name of ["instructions", "messages", "temperature", "top_p", "max_output_tokens", "seed"] as const) {
      equal(prompt.request?.[name], request[name]);
    }
    const quiet = await client.submit("Again", { websocket: false, wait: true, cache: true });
    equal([quiet.websocket, quiet.status], [false, "completed"]);
    const refused = await rejects(ProblemError, client.submit("Again", { tools: [{ type: "function" }] }));
    equal(refused.status, 400);
  },

  async "prompts are cancelled, retried and deleted"(stack) {
    const client = await newUser(stack);
    const { id } = await client.submit(UNFINISHED);
    equal((await client.cancel(id)).status, "cancelled");
    equal((await rejects(ProblemError, client.cancel(id))).type, "urn:promptwire:problem:already-ended");
    check(["queued", "processing"].includes((await client.retry(id)).status), "it is queued again");
    await client.delete(id);
    equal((await rejects(ProblemError, client.delete(id))).status, 404);
    equal(await take(1, client.prompts()), []);
  },

  async "a request whose response is lost is repeated, and changes nothing a second time"(stack) {
    const lost: string[] = [];
    const losing = fetching(async (path, send, { method }) => {
      const response = await send();
      if (lost.includes(`${method} ${path}`)) return response;
      lost.push(`${method} ${path}`);
      throw new TypeError("the connection broke");
    });
    const user = await newUser(stack);
    const { key } = (await user.request("POST", "/auth/keys/", { body: { name: "key" } })) as { key: string };
    const client = new Client(stack.url, { apiKey: key, fetch: losing });
    const { id } = await client.submit(UNFINISHED);
    equal((await client.cancel(id)).status, "cancelled");
    equal(
      (await take(9, client.prompts())).map((prompt) => prompt.id),
      [id],
    );
    await client.delete(id);
    equal(await take(1, user.prompts()), []);
    const shown = `GET /prompts/${id}/`; // after the second attempt to cancel it
    equal(lost, ["POST /prompts/", `POST /prompts/${id}/cancel/`, shown, "GET /prompts/", `DELETE /prompts/${id}/`]);
  },

  async "a request that must not be sent twice is not repeated"(stack) {
    let sent = 0;
    const losing = fetching(async (_, send) => {
      sent += 1;
      await send();
      throw new TypeError("the connection broke");
    });
    const name = newName();
    await rejects(UnreachableError, new Client(stack.url, { fetch: losing }).register(name, PASSWORD));
    equal(sent, 1);
    await new Client(stack.url).login(name, PASSWORD);
  },

  async "the same key submits one prompt"(stack) {
    const client = await newUser(stack);
    const [first, second] = await Promise.all([
      client.submit("Once", { key: "order-1" }),
      client.submit("Once", { key: "order-1" }),
    ]);
    equal(first.id, second.id);
    equal((await rejects(ProblemError, client.submit("Twice", { key: "order-1" }))).status, 422);
  },

  async "lists are filtered, and fetched page by page"(stack) {
    const pages: string[] = [];
    const recording = fetching((path, send, { method }) => {
      if (`${method} ${path}` === "GET /prompts/") pages.push(path);
      return send();
    });
    const client = await newUser(stack, { fetch: recording });
    const ids: number[] = [];
    for (let number = 0; number < 4; number += 1) {
      const metadata = { parity: number % 2 === 0 ? "even" : "odd", "a key": "a&b=c" };
      ids.unshift((await client.submit(`Number ${number}`, { metadata })).id);
    }
    const all = await take(9, client.prompts({ metadata: { "a key": "a&b=c" } }));
    equal(
      all.map(({ id }) => id),
      ids,
    ); // newest first
    check(pages.length > 1, "a page has at most 1 KiB of JSON");
    equal(
      (await take(9, client.prompts({ limit: 3 }))).map(({ id }) => id),
      ids.slice(0, 3),
    );
    equal(
      (await take(9, client.prompts({ metadata: { parity: "odd" } }))).map(({ id }) => id),
      [ids[0], ids[2]],
    );
    equal(await take(9, client.prompts({ until: all[3]!.created_at })), []);
    equal((await take(9, client.prompts({ since: all[3]!.created_at, model: "default" }))).length, 4);
    await Promise.all(ids.map((id) => client.wait(id)));
    equal((await take(9, client.prompts({ status: "completed" }))).length, 4);
    pages.length = 0;
    await take(1, client.prompts());
    equal(pages.length, 1); // on demand
  },

  async "prompts are found by meaning, by words, and by both"(stack) {
    const client = await newUser(stack);
    const topic = { metadata: { topic: "sea" } };
    const tides = await client.submit("What causes ocean tides?", { wait: true, ...topic });
    await client.submit("How do I bake bread with error E4711?", { wait: true });
    const [nearest] = await client.similar("tides of the ocean", { mode: "vector", limit: 1, max_score: 2 });
    equal(nearest?.id, tides.id);
    check(typeof nearest?.similarity_score === "number", "its distance");
    const byWords = await client.similar("E4711", { mode: "text" });
    equal(
      byWords.map(({ prompt_text }) => prompt_text),
      ["How do I bake bread with error E4711?"],
    );
    equal((await client.similar("E4711 tides", { mode: "hybrid" })).length, 2);
    equal(
      (await client.similar("bread", topic)).map(({ id }) => id),
      [tides.id],
    );
  },

  async "every wait ends when it is aborted"(stack) {
    const client = await newUser(stack);
    const unreachable = new Client("http://127.0.0.1:1", { retries: 1_000 });
    const headers = { "Retry-After": "3600" };
    const busy = fetching(async () => new Response("", { status: 503, headers }));
    const waiting = new Client(stack.url, { timeoutMs: Infinity, fetch: busy });
    const { id } = await client.submit(UNFINISHED);
    const { signal, abort } = aborting();
    const waits = [
      client.wait(id, { signal }),
      client.submit(UNFINISHED, { wait: true, signal }),
      take(1, client.follow(id, { signal })),
      take(1, client.listen({ signal })),
      unreachable.login("alice", PASSWORD, { signal }),
      waiting.login("alice", PASSWORD, { signal }),
    ];
    setTimeout(abort, 500);
    for (const wait of waits) equal(await wait.catch((reason: unknown) => reason), "changed my mind");
    for await (const prompt of client.prompts()) await client.cancel(prompt.id);
  },
};
export default cases;

function aborting(): { signal: AbortSignal; abort: () => void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: () => controller.abort("changed my mind") };
}
