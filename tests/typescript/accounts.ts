/** Logins, refreshing, API keys, and errors. */

import { Client, MemoryTokenStore, NotLoggedInError, ProblemError, UnreachableError } from "promptwire";

import { type Case, PASSWORD, check, equal, fetching, idOf, newName, newUser, rejects, take } from "./stack.js";

interface Key {
  key: string;
}

const cases: Record<string, Case> = {
  async "a user registers, logs in, and out"({ url }) {
    const client = new Client(`${url}/`);
    const name = newName();
    equal((await client.register(name, PASSWORD)).username, name);
    const taken = await rejects(ProblemError, client.register(name, PASSWORD));
    equal([taken.status, taken.type], [409, "urn:promptwire:problem:username-taken"]);
    await rejects(NotLoggedInError, client.login(name, "a wrong password"));
    await rejects(NotLoggedInError, client.username());
    await client.login(name, PASSWORD);
    equal(await client.username(), name);
    equal(await client.logout(), name);
    await rejects(NotLoggedInError, take(1, client.prompts()));
  },

  async "calls at the same time refresh an expired login once"(stack) {
    const tokenStore = new MemoryTokenStore();
    let refreshed = 0;
    const counting = fetching((path, send) => {
      if (path === "/auth/refresh/") refreshed += 1;
      return send();
    });
    const client = await newUser(stack, { tokenStore, fetch: counting });
    const login = tokenStore.read()!;
    tokenStore.write({ ...login, access: "expired" });
    const aborting = AbortSignal.abort("changed my mind");
    const aborted = client.show(1, { signal: aborting }).catch((reason: unknown) => reason);
    const calls = Array.from({ length: 5 }, () => take(1, client.prompts()));
    equal(await Promise.all(calls), [[], [], [], [], []]);
    equal(await aborted, "changed my mind");
    equal(refreshed, 1);
    check(tokenStore.read()!.refresh !== login.refresh, "the refresh token is another one");
  },

  async "a login that has ended is forgotten"(stack) {
    const tokenStore = new MemoryTokenStore();
    const client = await newUser(stack, { tokenStore });
    tokenStore.write({ username: "alice", access: "expired", refresh: "spent" });
    await rejects(NotLoggedInError, client.show(1));
    equal(tokenStore.read(), null);
  },

  async "an API key needs no login"(stack) {
    const user = await newUser(stack);
    const body = { name: "key", scopes: ["prompts:read", "prompts:write"] };
    const { key } = (await user.request("POST", "/auth/keys/", { body })) as Key;
    const client = new Client(stack.url, { apiKey: key });
    equal(await client.username(), await user.username());
    const prompt = await client.submit("With a key", { wait: true });
    equal((await user.show(prompt.id)).response_text, prompt.response_text);
    equal((await take(1, client.listen({ since: 0 }))).map(idOf), [prompt.id]);
    const wrong = new Client(stack.url, { apiKey: "pw_wrong" });
    await rejects(NotLoggedInError, wrong.show(prompt.id));
    await rejects(NotLoggedInError, take(1, wrong.listen()));
    await rejects(TypeError, (async () => new Client(stack.url, { apiKey: "wrong" }))());
  },

  async "an error has the fields of the problem"(stack) {
    const client = await newUser(stack);
    const invalid = await rejects(ProblemError, client.submit(" ", { temperature: 9 }));
    equal([invalid.status, invalid.type, invalid.title], [400, "about:blank", "Bad Request"]);
    equal(invalid.errors.map(({ field }) => field).sort(), ["prompt_text", "temperature"]);
    check(invalid.message.includes(invalid.errors[0]!.message.replace(/\.$/, "")), invalid.message);
    const missing = await rejects(ProblemError, client.show(2 ** 40));
    equal([missing.status, missing.type], [404, "urn:promptwire:problem:prompt-not-found"]);
    check(Boolean(missing.requestId), "its number in the logs");
    const unknown = await rejects(ProblemError, client.request("GET", "/v1/models/unknown"));
    equal([unknown.status, unknown.type], [404, "urn:promptwire:problem:model_not_found"]);
  },

  async "a server that cannot be reached is an error after the time limit"({ control }) {
    const closed = new Client("http://127.0.0.1:1", { timeoutMs: 300 });
    await rejects(UnreachableError, closed.login("alice", PASSWORD));
    const silent = new Client(`${control}/silent`, { timeoutMs: 300 });
    await rejects(UnreachableError, silent.login("alice", PASSWORD));
    const another = new Client(`${control}/other`);
    const error = await rejects(UnreachableError, another.login("alice", PASSWORD));
    check(error.message.includes("is not Promptwire's API"), error.message);
  },

  async "what cannot be sent is an error at once"({ url }) {
    let requests = 0;
    const counting = fetching(async () => {
      requests += 1;
      throw new TypeError("fetch failed");
    });
    for (const address of ["localhost:8000", "ftp://localhost", "http://alice:secret@localhost", "http://"]) {
      const error = await rejects(TypeError, (async () => new Client(address))());
      check(!error.message.includes("secret"), error.message);
    }
    const client = new Client(url, { apiKey: "pw_any", fetch: counting });
    await rejects(TypeError, client.submit("Hi", { key: "€" }));
    await rejects(TypeError, client.request("POST", "/prompts/", { body: { prompt_text: 1n } }));
    equal(requests, 0);
  },

  async "a long time is not a short one"({ url }) {
    let requests = 0;
    const busy = fetching(async () => {
      requests += 1;
      return new Response("", { status: 503, headers: { "Retry-After": "9999999999" } });
    });
    const client = new Client(url, { apiKey: "pw_any", timeoutMs: Infinity, fetch: busy });
    const signal = AbortSignal.timeout(100);
    await client.show(1, { signal }).catch(() => {});
    equal(requests, 1);
  },

  async "what is over a limit is repeated after the time that the API names"(stack) {
    const answers = [
      ["429", "1"],
      ["503", new Date().toUTCString()],
    ] as const;
    const times: number[] = [];
    const limiting = fetching(async (path, send) => {
      if (path !== "/prompts/") return send();
      const [status, after] = answers[times.push(performance.now()) - 1] ?? [];
      return status === undefined
        ? send()
        : new Response("", { status: Number(status), headers: { "Retry-After": after! } });
    });
    const client = await newUser(stack, { retries: 0, fetch: limiting });
    equal((await client.submit("Patience")).prompt_text, "Patience");
    equal(times.length, 3);
    check(times[1]! - times[0]! >= 999, "it waits for a second");
  },
};
export default cases;
