// Files and batches by the Node SDK.
import assert from "node:assert/strict";

const endpoint = "/v1/chat/completions";

async function upload(client, OpenAI, ...questions) {
  return uploadWith({}, client, OpenAI, ...questions);
}

async function uploadWith(fields, client, OpenAI, ...questions) {
  const lines = questions.map((content, number) => ({
    custom_id: `line-${number}`,
    method: "POST",
    url: endpoint,
    body: { model: "default", messages: [{ role: "user", content }], ...fields },
  }));
  const data = Buffer.from(lines.map((line) => JSON.stringify(line)).join("\n"));
  return client.files.create({ file: await OpenAI.toFile(data, "questions.jsonl"), purpose: "batch" });
}

const make = (client, file, fields = {}) =>
  client.batches.create({ input_file_id: file.id, endpoint, completion_window: "24h", ...fields });

async function ended(client, batch) {
  while (["validating", "in_progress", "finalizing", "cancelling"].includes(batch.status)) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    batch = await client.batches.retrieve(batch.id);
  }
  return batch;
}

export default {
  "a file is uploaded, read and deleted": async (client, OpenAI) => {
    const file = await upload(client, OpenAI, "Why are there tides?");
    assert.equal((await (await client.files.content(file.id)).text()).length, file.bytes);
    assert.equal((await client.files.retrieve(file.id)).filename, "questions.jsonl");
    assert.ok((await client.files.delete(file.id)).deleted);
    await assert.rejects(client.files.retrieve(file.id), OpenAI.NotFoundError);
  },
  "files are listed page by page": async (client, OpenAI) => {
    const made = [];
    for (let i = 0; i < 3; i++) made.unshift((await upload(client, OpenAI, "Why are there tides?")).id);
    const listed = [];
    for await (const file of client.files.list({ limit: 2 })) listed.push(file.id);
    assert.deepEqual(listed.filter((id) => made.includes(id)), made);
  },
  "a batch is answered": async (client, OpenAI) => {
    const file = await upload(client, OpenAI, "Why are there tides?", "Why is there wind?");
    const batch = await ended(client, await make(client, file));
    assert.deepEqual({ ...batch.request_counts }, { total: 2, completed: 2, failed: 0 });
    const text = await (await client.files.content(batch.output_file_id)).text();
    const lines = text.trim().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual(lines.map((line) => line.custom_id), ["line-0", "line-1"]);
    for (const line of lines) assert.equal(line.response.body.object, "chat.completion");
  },
  "a batch with a bad line fails and names it": async (client, OpenAI) => {
    const file = await uploadWith({ temperature: 99 }, client, OpenAI, "Why are there tides?");
    const batch = await ended(client, await make(client, file));
    assert.equal(batch.status, "failed");
    assert.deepEqual(batch.errors.data.map(({ line, param }) => [line, param]), [[1, "temperature"]]);
  },
  "a repeated batch with its key is made once": async (client, OpenAI) => {
    const file = await upload(client, OpenAI, "Why are there tides?");
    const options = { headers: { "Idempotency-Key": `batch-${file.id}` } };
    const fields = { input_file_id: file.id, endpoint, completion_window: "24h" };
    const first = await client.batches.create(fields, options);
    assert.equal((await client.batches.create(fields, options)).id, first.id);
  },
  "a batch is cancelled and keeps its metadata": async (client, OpenAI) => {
    const file = await upload(client, OpenAI, ...Array.from({ length: 1000 }, (_, number) => `Question ${number}`));
    const batch = await make(client, file, { metadata: { topic: "sea" } });
    const last = await ended(client, await client.batches.cancel(batch.id));
    assert.deepEqual([last.status, last.metadata], ["cancelled", { topic: "sea" }]);
  },
  "batches are listed page by page": async (client) => {
    const listed = [];
    for await (const batch of client.batches.list({ limit: 1 })) listed.push(batch.id);
    assert.equal(new Set(listed).size, listed.length);
  },
  "an unknown file is a bad request": async (client, OpenAI) => {
    await assert.rejects(make(client, { id: "file-404" }), OpenAI.BadRequestError);
  },
};
