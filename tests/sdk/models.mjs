// Models and embeddings by the Node SDK.
import assert from "node:assert/strict";

const model = "hashing-1";

export default {
  "the models are listed": async (client) => {
    const names = [];
    for await (const each of client.models.list()) names.push(each.id); // all pages
    assert.deepEqual(names, ["default", model]);
  },
  "a model is found by its name": async (client) => {
    assert.equal((await client.models.retrieve(model)).id, model);
  },
  "texts have vectors": async (client) => {
    const { data } = await client.embeddings.create({ model, input: ["tides", "the moon"] });
    assert.deepEqual(data.map((each) => each.embedding.length), [384, 384]);
  },
  "floats are the numbers of base64": async (client) => {
    const floats = await client.embeddings.create({ model, input: "tides", encoding_format: "float" });
    const decoded = await client.embeddings.create({ model, input: "tides" });
    floats.data[0].embedding.forEach((each, i) => assert.ok(Math.abs(each - decoded.data[0].embedding[i]) < 1e-6));
  },
};
