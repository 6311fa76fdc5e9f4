// Runs the calls of all modules and prints what failed as JSON. Usage: node run.mjs BASE_URL KEY MODULE…
import { createRequire } from "node:module";

const [baseURL, apiKey, ...modules] = process.argv.slice(2);
// The package is in a folder of its own: NODE_PATH, which `import` does not read.
const { default: OpenAI } = createRequire(import.meta.url)("openai");
const client = new OpenAI({ baseURL, apiKey });
const passed = [];
const failed = {};
for (const name of modules) {
  const { default: calls } = await import(`./${name}.mjs`);
  await Promise.all(
    Object.entries(calls).map(async ([call, run]) => {
      try {
        await run(client, OpenAI);
        passed.push(call);
      } catch (error) {
        failed[call] = error.stack;
      }
    }),
  );
}
console.log(JSON.stringify({ passed, failed }));
