// Errors by the Node SDK: their classes.
import assert from "node:assert/strict";

const model = "default";
const messages = [{ role: "user", content: "Explain what causes ocean tides" }];

export default {
  "a wrong key is an authentication error": async (client, OpenAI) => {
    await assert.rejects(client.withOptions({ apiKey: "pw_wrong" }).models.list(), OpenAI.AuthenticationError);
  },
  "a parameter that is not served is a bad request with its name": async (client, OpenAI) => {
    await assert.rejects(client.chat.completions.create({ model, messages, n: 2 }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      return error.param === "n" && error.requestID !== undefined;
    });
  },
  "an unknown model is a bad request": async (client, OpenAI) => {
    await assert.rejects(client.chat.completions.create({ model: "none", messages }), OpenAI.BadRequestError);
  },
  "an unknown completion is not found": async (client, OpenAI) => {
    await assert.rejects(client.chat.completions.retrieve("chatcmpl-999999999"), OpenAI.NotFoundError);
  },
};
