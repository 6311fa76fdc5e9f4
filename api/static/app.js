// Puts the parts together: who is logged in, what is known, what is shown.

import { Api } from "./api.js";
import { Cards } from "./cards.js";
import * as composer from "./composer.js";
import { confirmDeletion } from "./confirm.js";
import { Connection } from "./connection.js";
import * as login from "./login.js";
import { Prompts, isRunning } from "./prompts.js";
import { Search } from "./search.js";
import { Session } from "./session.js";
import * as status from "./status.js";
import { beginning } from "./format.js";

const TICK = 30_000;
const NOTICE = 8_000;
// Sockets may be impossible, behind some proxy: then the list is read instead, but not at the first failure, when
// everybody comes back at once.
const FAILURES_BEFORE_READING = 2;

const find = (id) => document.getElementById(id);

const session = new Session(() => leave("Your login has ended. Log in again to go on.", session.username));
const api = new Api(session);
const changed = new Set();
const asked = new Set();
const prompts = new Prompts({ changed: note, ended: announceEnd, unknown: lookUp });
const cards = new Cards(find("prompts"), act);
const found = new Cards(find("found"), act);
const search = new Search((text, signal) => api.similar(text, signal), found, say);
let connection = null;
let shownFor = null;
let next = null;
let unseen = 0;

// --- Coming and going ---

function enter() {
  if (shownFor !== session.username) forget();
  shownFor = session.username;
  find("welcome").hidden = true;
  for (const id of ["desk", "who", "log-out"]) find(id).hidden = false;
  find("who").textContent = session.username;
  connection?.leave();
  connection = new Connection(session, {
    state: onState,
    joined: (isFirst) => isFirst && reload(),
    reset: reload,
    event: (event) => prompts.hear(event),
  });
  composer.focus();
}

/** Back to the form. What is on the page stays, for the same user. */
function leave(message, name) {
  connection?.leave();
  connection = null;
  status.hide();
  find("welcome").hidden = false;
  for (const id of ["desk", "who", "log-out"]) find(id).hidden = true;
  login.ask(message, name);
}

function forget() {
  prompts.clear();
  search.clear();
  composer.clear();
  next = null;
}

async function logOut() {
  const over = session.logOut();
  shownFor = null;
  forget();
  leave();
  await over;
}

function onState(name, pause) {
  status.show(name, pause);
  if (name === "waiting" && connection?.failures > FAILURES_BEFORE_READING) reload();
}

// --- What is known ---

/** Reads the list anew, as much of it as is shown. */
async function reload() {
  const began = prompts.time;
  try {
    const page = await api.newest(prompts.size);
    prompts.replace(page.prompts, began, page.next === null);
    next = page.next;
  } catch {
    return; // the connection says so
  }
  showMore();
}

async function more() {
  const began = prompts.time;
  const page = await attempt(() => api.after(next));
  if (!page) return;
  prompts.put(page.prompts, began);
  next = page.next;
  showMore();
}

/** Looks up one that another tab has submitted or queued again. */
async function lookUp(id) {
  if (asked.has(id)) return;
  asked.add(id);
  const began = prompts.time;
  try {
    prompts.put([await api.show(id)], began);
  } catch {
    // Deleted meanwhile, or away: its end is told in any case.
  } finally {
    asked.delete(id);
  }
}

async function submit(text, key) {
  const began = prompts.time;
  const prompt = await api.submit(text, key);
  prompts.put([prompt], began);
  search.clear();
  // It may have been answered before we were told that it was taken.
  if (isRunning(prompts.get(prompt.id) ?? prompt)) say(`Submitted as prompt ${prompt.id}.`);
}

async function act(name, id, button) {
  if (name === "remove") return remove(id, button.closest("li").querySelector(".prompt").textContent);
  button.disabled = true;
  const began = prompts.time;
  const prompt = await attempt(() => api[name](id));
  button.disabled = false;
  if (prompt) prompts.put([prompt], began);
  else lookUp(id);
}

async function remove(id, text) {
  if (!(await confirmDeletion(text))) return;
  const isDone = await attempt(async () => {
    await api.remove(id).catch(ignoreMissing);
    return true;
  });
  if (!isDone) return;
  prompts.remove(id);
  found.remove(id);
  search.again();
  say(`Prompt ${id} is deleted.`);
}

function ignoreMissing(error) {
  if (error.status !== 404) throw error;
}

/** What `call` resolves to; if it fails, a notice says why. */
async function attempt(call) {
  try {
    return await call();
  } catch (error) {
    notify(error.message);
    return null;
  }
}

// --- What is shown ---

/** Draws what has changed, a moment later and all at once: text may arrive faster than anybody can read. */
function note(id) {
  if (changed.size === 0) setTimeout(draw, 30);
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
  find("more").hidden = next === null;
  find("all-empty").hidden = prompts.size > 0;
}

function announceEnd(prompt) {
  const { id, status: ended, response_text: answer, error } = prompt;
  say(ended === "completed" ? `Prompt ${id} is answered: ${beginning(answer)}` : `Prompt ${id} is ${ended}. ${error ?? ""}`);
  if (document.hidden) showUnseen(unseen + 1);
  search.again();
}

/** How many prompts have ended while nobody looked stands in the tab. */
function showUnseen(count) {
  unseen = count;
  document.title = count ? `(${count}) Promptwire` : "Promptwire";
}

/** Tells those who listen, politely. */
function say(text) {
  find("announcer").textContent = text;
}

let noticeTimer = null;

function notify(text) {
  find("notice").textContent = text;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => (find("notice").textContent = ""), NOTICE);
}

// --- The page ---

login.init(session, enter);
composer.init(submit);
status.init(() => connection?.now());
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
  reload();
});
setInterval(() => [cards, found].forEach((each) => each.tick()), TICK);
if (/Mac|iPhone|iPad/.test(navigator.platform)) {
  for (const key of document.querySelectorAll(".modifier")) key.textContent = "⌘";
}

if (await session.resume()) enter();
else if (!session.username) leave();
