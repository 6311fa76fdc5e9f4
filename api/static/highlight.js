// Colours code, in a worker: the patterns of some languages take minutes with code that was written for that. Then the
// worker is stopped, and the code stays as it is.

const MAX_CHARACTERS = 20_000;
const MAX_TIME = 2_000; // milliseconds

const SCRIPT = new URL("./highlight-worker.js", import.meta.url).href;
// The page's trusted types let no other script become a worker.
const policy = globalThis.trustedTypes?.createPolicy("worker", { createScriptURL: () => SCRIPT });

const slow = new Set(); // code that took too long
let worker = null; // resolves to a Worker that is ready
let last = Promise.resolve(); // one at a time

/** Resolves to the code as HTML, which is to be sanitized; null if it stays as it is. */
export function highlight(code, language) {
  if (code.length > MAX_CHARACTERS) return null;
  return (last = last.then(() => (slow.has(code) ? null : run(code, language))));
}

async function run(code, language) {
  const running = await (worker ??= start());
  running.postMessage({ code, language });
  const timer = setTimeout(() => {
    slow.add(code);
    worker = null;
    running.terminate();
    running.dispatchEvent(new MessageEvent("message", { data: null }));
  }, MAX_TIME);
  const html = await answerOf(running);
  clearTimeout(timer);
  return html;
}

/** Starts a worker, which says when it has loaded the library. */
async function start() {
  const started = new Worker(policy?.createScriptURL("") ?? SCRIPT, { type: "module" });
  await answerOf(started);
  return started;
}

/** The next message of a worker; null if it fails. */
function answerOf(running) {
  return new Promise((resolve) => {
    running.onmessage = ({ data }) => resolve(data);
    running.onerror = () => resolve(null);
  });
}
