/** Runs suites on a page. */

import { type Case, type Stack } from "./stack.js";

/** Returns the number of passed cases, and the errors of the others by their names. */
export async function run(stack: Stack, suites: string[]): Promise<{ passed: number; failed: Record<string, string> }> {
  const failed: Record<string, string> = {};
  let passed = 0;
  const execute = async ([name, run]: [string, Case]): Promise<void> => {
    try {
      await run(stack);
      passed += 1;
    } catch (error) {
      failed[name] = error instanceof Error ? `${error.message}\n${error.stack}` : String(error);
    }
  };
  const modules: { default: Record<string, Case> }[] = await Promise.all(
    suites.map((suite) => import(`./${suite}.js`)),
  );
  await Promise.all(modules.flatMap(({ default: cases }) => Object.entries(cases).map(execute)));
  return { passed, failed };
}
