// Chat completions by the Node SDK.
import assert from "node:assert/strict";

const model = "default";
const messages = [{ role: "user", content: "Explain what causes ocean tides" }];
const inLisbon = [{ role: "user", content: "What is the weather in Lisbon?" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [
  { type: "function", function: { name: "get_weather", description: "The weather in a city", parameters } },
];

export default {
  "a question is answered": async (client) => {
    const completion = await client.chat.completions.create({ model, messages });
    assert.match(completion.choices[0].message.content, /ocean tides/);
  },
  "parameters are taken": async (client) => {
    const limits = { temperature: 0.5, top_p: 0.9, seed: 7, max_completion_tokens: 2, stop: "never" };
    const completion = await client.chat.completions.create({ model, messages, ...limits, metadata: { a: "b" } });
    assert.equal(completion.choices[0].finish_reason, "length");
    assert.deepEqual(completion.metadata, { a: "b" });
  },
  "a stream is the whole answer": async (client) => {
    let text = "";
    let id;
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
      id = chunk.id;
      text += chunk.choices[0].delta.content ?? "";
    }
    assert.equal((await client.chat.completions.retrieve(id)).choices[0].message.content, text);
  },
  "a stream has its usage": async (client) => {
    const options = { stream: true, stream_options: { include_usage: true } };
    let usage;
    for await (const chunk of await client.chat.completions.create({ model, messages, ...options }))
      usage = chunk.usage;
    assert.ok(usage.total_tokens > 0);
  },
  "a tool is called and its result answered": async (client) => {
    const asked = await client.chat.completions.create({ model, messages: inLisbon, tools });
    const { message } = asked.choices[0];
    const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "18 °C" };
    const answer = await client.chat.completions.create({ model, messages: [...inLisbon, message, result], tools });
    assert.equal(answer.choices[0].finish_reason, "stop");
  },
  "the SDK's runner calls tools by itself": async (client) => {
    const runnable = { ...tools[0].function, parse: JSON.parse, function: ({ city }) => `18 °C in ${city}` };
    const run = client.chat.completions.runTools({
      ...{ model, messages: inLisbon },
      tools: [{ type: "function", function: runnable }],
    });
    assert.ok(await run.finalContent());
  },
  "the SDK's stream helper gathers the answer": async (client) => {
    const completion = await client.chat.completions.stream({ model, messages }).finalChatCompletion();
    assert.equal(completion.choices[0].finish_reason, "stop");
  },
  "a schema is kept": async (client) => {
    const schema = { type: "object", properties: { n: { type: "integer" } }, required: ["n"] };
    const response_format = { type: "json_schema", json_schema: { name: "n", schema } };
    const completion = await client.chat.completions.create({ model, messages, response_format });
    assert.ok(Number.isInteger(JSON.parse(completion.choices[0].message.content).n));
  },
  "a caller that hangs up finds the answer by its id": async (client) => {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    let id;
    for await (const chunk of stream) {
      id = chunk.id;
      break; // closes the connection
    }
    assert.ok((await client.chat.completions.retrieve(id)).choices[0].message.content);
  },
  "a repeated key has the same answer": async (client) => {
    const headers = { "Idempotency-Key": crypto.randomUUID() };
    const first = await client.chat.completions.create({ model, messages }, { headers });
    assert.deepEqual(await client.chat.completions.create({ model, messages }, { headers }), first);
  },
  "a deleted completion is gone": async (client, OpenAI) => {
    const { id } = await client.chat.completions.create({ model, messages });
    assert.ok((await client.chat.completions.delete(id)).deleted);
    await assert.rejects(client.chat.completions.retrieve(id), OpenAI.NotFoundError);
  },
};
