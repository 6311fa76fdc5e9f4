// Runs suites with Node's test runner. Usage: node run-in-node.mjs URL CONTROL SUITE…
import { describe, it } from "node:test";

const [url, control, ...suites] = process.argv.slice(2);
const modules = await Promise.all(suites.map((suite) => import(`./${suite}.js`)));
describe("the client", { concurrency: true }, () => {
  for (const { default: cases } of modules) {
    for (const [name, run] of Object.entries(cases)) it(name, () => run({ url, control }));
  }
});
