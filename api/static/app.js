// The page: connects the session, the prompts and the elements that show them.

import { Actions, attempt } from "./actions.js";
import { forget, notify, say, sayEnded, showTitle } from "./announce.js";
import { Api } from "./api.js";
import { Cards } from "./cards.js";
import * as composer from "./composer.js";
import { Connection } from "./connection.js";
import { dismiss } from "./confirm.js";
import * as copying from "./copy.js";
import { following } from "./follow.js";
import { address } from "./http.js";
import { PromptList } from "./list.js";
import * as login from "./login.js";
import * as oidc from "./oidc.js";
import { Polling } from "./polling.js";
import { Prompts, isRunning } from "./prompts.js";
import { Search } from "./search.js";
import { Session } from "./session.js";
import { SinglePrompt } from "./single.js";
import * as status from "./status.js";

// In milliseconds.
const TIMES_INTERVAL = 30_000;
const WAITING_INTERVAL = 1_000;
const DRAW_DELAY = 30;
const POSITIONS_INTERVAL = 3_000;
// No event reports a prompt that was submitted elsewhere, by a program or in a batch, before its text arrives.
const PROBE_INTERVAL = 5_000;
// Some proxies do not let WebSockets through: then the page polls. If it was connected before, not after the first
// failures: when a server restarts, all pages reconnect at once.
const FAILURES_BEFORE_POLLING = 2;
// Farther from its beginning than this the user is reading the list, in pixels.
const READING = 600;
const OLDER_MARGIN = "1500px";

const find = (id) => document.getElementById(id);
const single = Number(/^p\/(\d+)\/?$/.exec(location.pathname.slice(address("").pathname.length))?.[1]);

const session = new Session((name) => showLogin("Your login has expired. Log in again to continue.", name), onOtherTab);
const api = new Api(session);
const changed = new Set(); // ids of prompts to draw
const prompts = new Prompts({ changed: scheduleDraw, ended: onEnd, unknown: (id) => list.fetch(id) });
const place = { changed: showState, isReading: () => scrollY > READING };
const list = single ? new SinglePrompt(single, api, prompts, place) : new PromptList(api, prompts, place);
const cards = new Cards(find("prompts"), act);
const found = new Cards(find("found"), act);
const search = new Search((text, options) => api.similar(text, options), found, say);
const actions = new Actions(api, prompts, {
  submitted: onSubmitted,
  deleted(id) {
    found.remove(id);
    search.refresh();
  },
  failed: (id) => list.fetch(id),
});
const polling = new Polling({
  poll: () => list.poll(),
  done: status.setPolling,
  isWaiting: () => prompts.unfinished.length > 0,
});
let connection = null;
let lastSeq = null; // the last event of the shown user
let shownUser = null;

// --- Login and logout ---

function showWorkspace() {
  disconnect();
  if (shownUser !== session.username) clear();
  shownUser = session.username;
  find("welcome").hidden = true;
  for (const id of ["desk", "who", "log-out"]) find(id).hidden = false;
  find("who").textContent = session.username;
  const on = { state: onState, joined: () => list.joined(), reset: () => list.renew(), event: onEvent };
  connection = new Connection(session, on, lastSeq);
  if (!single) composer.focus();
  linkConsole();
}

/** Shows admins and viewers a link to the console. */
async function linkConsole() {
  const { username } = session;
  const account = await api.account().catch(() => null); // the page works without the link
  if (session.username === username) find("console").hidden = !(account?.is_admin || account?.is_viewer);
}

/** Shows the login form. The workspace stays as it is, in case the same user logs in again. */
function showLogin(message, name) {
  disconnect();
  status.hide();
  find("welcome").hidden = false;
  for (const id of ["desk", "who", "log-out", "console"]) find(id).hidden = true;
  login.show(message, name);
}

/** Another tab has logged in or out. */
function onOtherTab() {
  if (session.username) return showWorkspace();
  disconnect();
  shownUser = null;
  clear();
  showLogin();
}

function disconnect() {
  dismiss();
  polling.stop();
  lastSeq = connection?.since ?? lastSeq;
  connection?.close();
  connection = null;
}

function clear() {
  lastSeq = null;
  list.clear();
  search.clear();
  composer.clear();
  forget();
  showState();
}

async function logOut() {
  const ended = session.logOut();
  onOtherTab();
  await ended;
}

// --- Events ---

function onState(state, delay) {
  status.show(state, delay);
  if (state === "live") {
    polling.stop();
    composer.reachable();
    search.refresh();
    if (list.hasOlder) observeEnd();
  }
  const isLost = !connection?.hasJoined || connection.failures > FAILURES_BEFORE_POLLING;
  if (state === "waiting" && isLost) polling.start();
}

function onEvent(event) {
  if (event.type === "prompt.deleted") found.remove(event.id);
  if (event.type.startsWith("batch.")) say(`A batch has ended: ${event.type.slice("batch.".length)}.`);
  else if (list.accepts(event)) prompts.apply(event);
}

function onEnd(prompt) {
  sayEnded(prompt);
  search.refresh();
}

function onSubmitted(prompt, began) {
  if (find("status-filter").value) setFilter("");
  list.accepts(prompt); // what was submitted elsewhere in between is fetched
  prompts.put([prompt], began);
  search.clear();
  polling.soon();
  // The event of its answer may have come before this response.
  if (isRunning(prompts.get(prompt.id) ?? prompt)) say(`Submitted as prompt ${prompt.id}.`);
}

function act(name, id, button) {
  actions.act(name, prompts.get(id) ?? found.get(id), button);
}

// --- Display ---

/** Draws changed prompts together after a short delay: text may arrive faster than anyone can read. */
function scheduleDraw(id) {
  if (changed.size === 0) setTimeout(draw, DRAW_DELAY);
  changed.add(id);
}

function draw() {
  const growing = Math.max(...[...changed].filter((id) => prompts.get(id)?.partialText));
  following(cards.card(growing), () => {
    for (const id of changed) {
      const prompt = prompts.get(id);
      if (prompt && list.shows(prompt)) cards.put(prompt);
      else cards.remove(id);
    }
  });
  changed.clear();
  showState();
}

function showState() {
  find("more").hidden = !list.hasOlder || cards.ids.length === 0;
  find("newer").hidden = !list.isBehind;
  find("all-empty").hidden = !list.isLoaded || changed.size > 0 || cards.ids.length > 0;
  find("all-empty").textContent = emptyText();
  showTitle(prompts.unfinished.length, single ? `Prompt ${single} – ` : "");
}

function emptyText() {
  if (single) return `You have no prompt ${single}. It may have been deleted.`;
  const filter = find("status-filter");
  return filter.value
    ? `You have no prompts with the status “${filter.selectedOptions[0].text}”.`
    : "Nothing here yet. Submit your first prompt above.";
}

function setFilter(value) {
  find("status-filter").value = value;
  list.filter(value);
}

function showNewest() {
  scrollTo({ top: 0, behavior: "instant" });
  list.sync();
}

// --- Older prompts: the list goes on before its end is reached ---

const end = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && older(), { rootMargin: OLDER_MARGIN });
let isFetchingOlder = false;

/** Asks again whether the end is near; otherwise an observer calls only if that has changed. */
function observeEnd() {
  end.unobserve(find("more"));
  end.observe(find("more"));
}

async function older() {
  if (isFetchingOlder || !list.hasOlder || !connection) return;
  isFetchingOlder = true;
  const isDone = await attempt(async () => {
    await list.older();
    return true;
  });
  isFetchingOlder = false;
  draw();
  if (isDone) observeEnd();
}

// --- The page ---

login.init(session, (problem) => {
  showWorkspace();
  if (problem) notify(problem);
});
composer.init((text, key) => actions.submit(text, key));
copying.init(say);
status.init(() => connection?.retryNow());
find("log-out").addEventListener("click", logOut);
find("export").addEventListener("click", ({ target }) => actions.export(target));
find("more").addEventListener("click", older);
find("newer").addEventListener("click", showNewest);
find("status-filter").addEventListener("change", ({ target }) => setFilter(target.value));
observeEnd();
document.addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey) || single || find("desk").hidden) return;
  event.preventDefault();
  search.focus();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !connection) return;
  showState();
  if (polling.isOn) polling.soon();
  else list.sync();
});

/** Calls a function at an interval, while the page is visible and connected. */
function every(interval, call) {
  setInterval(() => connection && !document.hidden && call(), interval);
}
every(POSITIONS_INTERVAL, () => list.refreshQueued());
every(PROBE_INTERVAL, () => list.probe());
every(WAITING_INTERVAL, () => cards.updateWaiting());
every(TIMES_INTERVAL, () => [cards, found].forEach((each) => each.updateTimes()));
if (/Mac|iPhone|iPad/.test(navigator.platform)) {
  for (const key of document.querySelectorAll(".modifier")) key.textContent = "⌘";
}
document.body.classList.toggle("single", Boolean(single));
if (single) find("all-title").textContent = `Prompt ${single}`;

oidc.init(showLogin);
const refusal = await oidc.finish(session).catch((error) => error.message);
if (refusal === true || (await session.resume())) showWorkspace();
else showLogin(refusal || undefined);
