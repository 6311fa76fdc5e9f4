// Responses by the Node SDK.
import assert from "node:assert/strict";

const model = "default";
const input = "Explain what causes ocean tides";
const tool = {
  type: "function",
  name: "get_weather",
  strict: true,
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false },
};

export default {
  "a response is answered": async (client) => {
    const response = await client.responses.create({ model, input });
    assert.equal(response.status, "completed");
    assert.match(response.output_text, /ocean tides/);
  },
  "response parameters are taken": async (client) => {
    const metadata = { topic: "sea" };
    const response = await client.responses.create({ model, input, instructions: "Be brief.", max_output_tokens: 16, metadata });
    assert.equal(response.incomplete_details.reason, "max_output_tokens");
    assert.deepEqual(response.metadata, metadata);
  },
  "a background response is retrieved when it has ended": async (client) => {
    let response = await client.responses.create({ model, input, background: true });
    while (["queued", "in_progress"].includes(response.status)) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      response = await client.responses.retrieve(response.id);
    }
    assert.match(response.output_text, /ocean tides/);
  },
  "a response is streamed": async (client) => {
    const stream = client.responses.stream({ model, input });
    let text = "";
    stream.on("response.output_text.delta", (event) => (text += event.delta));
    assert.equal((await stream.finalResponse()).output_text, text);
  },
  "a background stream is resumed behind any event": async (client) => {
    const numbers = [];
    let id;
    for await (const event of await client.responses.create({ model, input, background: true, stream: true })) {
      numbers.push(event.sequence_number);
      id ??= event.response.id;
      if (numbers.length === 5) break;
    }
    const rest = await client.responses.retrieve(id, { stream: true, starting_after: numbers.at(-1) });
    for await (const event of rest) numbers.push(event.sequence_number);
    assert.deepEqual(numbers, [...numbers.keys()]);
  },
  "a background response is cancelled twice": async (client) => {
    const { id } = await client.responses.create({ model, input, background: true });
    const first = await client.responses.cancel(id);
    assert.deepEqual(await client.responses.cancel(id), first);
  },
  "a response is deleted": async (client, OpenAI) => {
    const { id } = await client.responses.create({ model, input });
    await client.responses.delete(id);
    await assert.rejects(client.responses.retrieve(id), OpenAI.NotFoundError);
  },
  "input items are listed page by page": async (client) => {
    const items = [0, 1, 2].map((number) => ({ role: "user", content: `message ${number}` }));
    const { id } = await client.responses.create({ model, input: items, background: true });
    const texts = [];
    for await (const item of client.responses.inputItems.list(id, { limit: 2, order: "asc" })) texts.push(item.content[0].text);
    assert.deepEqual(texts, ["message 0", "message 1", "message 2"]);
  },
  "a conversation is continued": async (client) => {
    const first = await client.responses.create({ model, input: "My name is Ada" });
    const second = await client.responses.create({ model, input: "What is my name?", previous_response_id: first.id });
    assert.match(second.output_text, /My name is Ada/);
  },
  "a response has a format": async (client) => {
    const schema = { type: "object", properties: { cause: { type: "string" } }, required: ["cause"], additionalProperties: false };
    const format = { type: "json_schema", name: "cause", strict: true, schema };
    const response = await client.responses.create({ model, input, text: { format } });
    assert.deepEqual(Object.keys(JSON.parse(response.output_text)), ["cause"]);
  },
  "a function is called and its result answered": async (client) => {
    const asked = await client.responses.create({ model, input: "What is the weather in Lisbon?", tools: [tool] });
    const [call] = asked.output;
    assert.deepEqual(Object.keys(JSON.parse(call.arguments)), ["city"]);
    const output = { type: "function_call_output", call_id: call.call_id, output: "18 degrees" };
    const answered = await client.responses.create({ model, previous_response_id: asked.id, input: [output], tools: [tool] });
    assert.match(answered.output_text, /18 degrees/);
  },
  "a response that is not stored is not found": async (client, OpenAI) => {
    const { id } = await client.responses.create({ model, input, store: false });
    await assert.rejects(client.responses.retrieve(id), OpenAI.NotFoundError);
  },
  "an image is an input": async (client) => {
    const image = { type: "input_image", image_url: "data:image/png;base64,iVBORw0KGgo=", detail: "auto" };
    const content = [{ type: "input_text", text: "What is this?" }, image];
    const response = await client.responses.create({ model, input: [{ role: "user", content }] });
    assert.match(response.output_text, /I was sent 1 image/);
  },
  "a tool that is not served is a bad request with its name": async (client, OpenAI) => {
    const asked = client.responses.create({ model, input, tools: [{ type: "web_search" }] });
    await assert.rejects(asked, (error) => error instanceof OpenAI.BadRequestError && error.param === "tools[0].type");
  },
};
