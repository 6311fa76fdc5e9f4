// The page: connects the session, the prompts and the elements that show them.

import { Api } from "./api.js";
import { Cards } from "./cards.js";
import * as composer from "./composer.js";
import { confirmDeletion } from "./confirm.js";
import { Connection } from "./connection.js";
import * as login from "./login.js";
import * as oidc from "./oidc.js";
import { Polling } from "./polling.js";
import { Prompts, isRunning } from "./prompts.js";
import { Search } from "./search.js";
import { Session } from "./session.js";
import * as status from "./status.js";
import { answerText, cutOffNote, excerpt } from "./format.js";

// In milliseconds.
const TIMES_INTERVAL = 30_000;
const NOTICE_TIME = 8_000;
const DRAW_DELAY = 30;
const POSITIONS_INTERVAL = 3_000;
// Some proxies do not let WebSockets through: then the page polls. If it was connected before, not after the first
// failures: when a server restarts, all pages reconnect at once.
const FAILURES_BEFORE_POLLING = 2;
// A poll fetches one page of the newest prompts, and this many of the older ones that are unfinished.
const POLLED_OLDER = 5;

const find = (id) => document.getElementById(id);

const session = new Session(() => showLogin("Your login has expired. Log in again to continue.", session.username));
const api = new Api(session);
const changed = new Set(); // ids of prompts to draw
const fetching = new Set(); // ids of prompts that `fetchPrompt` waits for
const prompts = new Prompts({ changed: scheduleDraw, ended: announceEnd, unknown: fetchPrompt });
const cards = new Cards(find("prompts"), act);
const found = new Cards(find("found"), act);
const search = new Search((text, signal) => api.similar(text, signal), found, say);
const polling = new Polling({ poll, done: status.setPolling, isWaiting: () => prompts.unfinished.length > 0 });
let connection = null;
let shownUser = null;
let nextPage = null;
let unseen = 0;

// --- Login and logout ---

function showWorkspace() {
  if (shownUser !== session.username) clear();
  shownUser = session.username;
  find("welcome").hidden = true;
  for (const id of ["desk", "who", "log-out"]) find(id).hidden = false;
  find("who").textContent = session.username;
  disconnect();
  connection = new Connection(session, {
    state: onState,
    joined: (isFirst) => isFirst && reload(),
    reset: () => reload(),
    event: (event) => prompts.apply(event),
  });
  composer.focus();
}

/** Shows the login form. The workspace stays as it is, in case the same user logs in again. */
function showLogin(message, name) {
  disconnect();
  status.hide();
  find("welcome").hidden = false;
  for (const id of ["desk", "who", "log-out"]) find(id).hidden = true;
  login.show(message, name);
}

function disconnect() {
  polling.stop();
  connection?.close();
  connection = null;
}

function clear() {
  prompts.clear();
  search.clear();
  composer.clear();
  nextPage = null;
}

async function logOut() {
  const ended = session.logOut();
  shownUser = null;
  clear();
  showLogin();
  await ended;
}

function onState(state, delay) {
  status.show(state, delay);
  if (state === "live") polling.stop();
  const isLost = !connection?.hasJoined || connection.failures > FAILURES_BEFORE_POLLING;
  if (state === "waiting" && isLost) polling.start();
}

// --- Requests ---

/** Fetches the newest prompts again, at least `count`: as many as are shown. Resolves to them; null if it failed. */
async function reload(count = prompts.size) {
  const user = shownUser;
  const began = prompts.time;
  const { size } = prompts;
  let page;
  try {
    page = await api.newest(count);
  } catch {
    return null; // the state of the connection is shown
  }
  if (shownUser !== user) return [];
  prompts.replace(page.prompts, began, page.next === null);
  if (page.prompts.length >= size || page.next === null) nextPage = page.next;
  showMore();
  return page.prompts;
}

/** Fetches what events would have reported. Resolves to whether the server answered. */
async function poll() {
  const newest = await reload(1);
  if (newest === null) return false;
  const fetched = new Set(newest.map(({ id }) => id));
  const older = prompts.unfinished.filter((id) => !fetched.has(id));
  older.slice(0, POLLED_OLDER).forEach(fetchPrompt);
  return true;
}

async function more() {
  const user = shownUser;
  const began = prompts.time;
  const page = await attempt(() => api.page(nextPage));
  if (!page || shownUser !== user) return;
  prompts.put(page.prompts, began);
  nextPage = page.next;
  showMore();
}

/** Fetches a prompt that another tab has submitted or retried. */
async function fetchPrompt(id) {
  if (fetching.has(id)) return;
  fetching.add(id);
  const began = prompts.time;
  try {
    prompts.put([await api.get(id)], began);
  } catch {
    // The prompt was deleted, or the server is unavailable. In both cases an event or a reload follows.
  } finally {
    fetching.delete(id);
  }
}

/** Fetches the positions of queued prompts; no event reports them. */
async function refreshPositions() {
  const queued = prompts.queued;
  if (!connection || document.hidden || queued.length === 0) return;
  const user = shownUser;
  const began = prompts.time;
  try {
    const page = await api.queued();
    if (shownUser !== user) return;
    const shown = page.prompts.filter(({ id }) => prompts.get(id));
    prompts.put(shown, began);
    const ids = new Set(shown.map(({ id }) => id));
    if (page.next === null) queued.filter((id) => !ids.has(id)).forEach(fetchPrompt);
  } catch {
    // the page already shows the state of the connection
  }
}

async function submit(text, key) {
  const user = shownUser;
  const began = prompts.time;
  const prompt = await api.submit(text, key);
  if (shownUser !== user) return;
  prompts.put([prompt], began);
  search.clear();
  polling.soon();
  // The event of its answer may have come before this response.
  if (isRunning(prompts.get(prompt.id) ?? prompt)) say(`Submitted as prompt ${prompt.id}.`);
}

async function act(name, id, button) {
  if (name === "delete") return deletePrompt(id, button.closest("li").querySelector(".prompt").textContent);
  button.disabled = true;
  const began = prompts.time;
  const prompt = await attempt(() => api[name](id));
  button.disabled = false;
  if (prompt) prompts.put([prompt], began);
  else fetchPrompt(id);
}

async function deletePrompt(id, text) {
  if (!(await confirmDeletion(text))) return;
  const isDone = await attempt(async () => {
    await api.delete(id).catch(ignoreMissing);
    return true;
  });
  if (!isDone) return;
  prompts.remove(id);
  found.remove(id);
  search.refresh();
  say(`Prompt ${id} was deleted.`);
}

function ignoreMissing(error) {
  if (error.status !== 404) throw error;
}

/** Resolves to what `call` resolves to, or to null if it fails; a notice then shows the error. */
async function attempt(call) {
  try {
    return await call();
  } catch (error) {
    notify(error.message);
    return null;
  }
}

// --- Display ---

/** Draws changed prompts together after a short delay: text may arrive faster than anyone can read. */
function scheduleDraw(id) {
  if (changed.size === 0) setTimeout(draw, DRAW_DELAY);
  changed.add(id);
}

function draw() {
  for (const id of changed) {
    const prompt = prompts.get(id);
    if (prompt) cards.put(prompt);
    else cards.remove(id);
  }
  changed.clear();
  showMore();
}

function showMore() {
  find("more").hidden = nextPage === null;
  find("all-empty").hidden = prompts.size > 0;
}

function announceEnd(prompt) {
  const { id, status: outcome, error } = prompt;
  if (outcome === "completed") say(`Prompt ${id} was answered: ${excerpt(answerText(prompt))} ${cutOffNote(prompt)}`.trim());
  else say(`Prompt ${id} ${outcome === "failed" ? "failed" : "was cancelled"}. ${error ?? ""}`);
  if (document.hidden) showUnseen(unseen + 1);
  search.refresh();
}

/** Shows in the title of the tab how many prompts have finished while it was hidden. */
function showUnseen(count) {
  unseen = count;
  document.title = count ? `(${count}) Promptwire` : "Promptwire";
}

/** Announces a text to screen readers, without interrupting them. */
function say(text) {
  find("announcer").textContent = text;
}

let noticeTimer = null;

function notify(text) {
  find("notice").textContent = text;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => (find("notice").textContent = ""), NOTICE_TIME);
}

// --- The page ---

login.init(session, (problem) => {
  showWorkspace();
  if (problem) notify(problem);
});
composer.init(submit);
status.init(() => connection?.retryNow());
find("log-out").addEventListener("click", logOut);
find("more").addEventListener("click", more);
document.addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey) || find("desk").hidden) return;
  event.preventDefault();
  search.focus();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !connection) return;
  showUnseen(0);
  if (polling.isOn) polling.soon();
  else reload();
});
setInterval(refreshPositions, POSITIONS_INTERVAL);
setInterval(() => [cards, found].forEach((each) => each.updateTimes()), TIMES_INTERVAL);
if (/Mac|iPhone|iPad/.test(navigator.platform)) {
  for (const key of document.querySelectorAll(".modifier")) key.textContent = "⌘";
}

oidc.init(showLogin);
const refusal = await oidc.finish(session).catch((error) => error.message);
if (refusal === true || (await session.resume())) showWorkspace();
else if (!session.username) showLogin(refusal || undefined);
