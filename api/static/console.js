// The console: the login, the panels, which are fetched every few seconds, and the actions of the buttons.

import { notify } from "./announce.js";
import { ask } from "./console-dialog.js";
import { filterText, makePanels } from "./console-panels.js";
import { Problem } from "./http.js";
import { Session } from "./session.js";

// In milliseconds. The slow panels are fetched in every SLOW_ROUNDS-th round.
const INTERVAL = 4_000;
const BUSY_INTERVAL = 1_000; // while an operation is running
const SLOW_ROUNDS = 8;
const STATUSES = { retry: ["failed", "cancelled"], cancel: ["queued", "processing"] };

const find = (id) => document.getElementById(id);
const form = find("filter");

const session = new Session(
  () => showLogin("Your login has expired. Log in again."),
  () => location.reload(), // another tab has logged in or out
);
const panels = makePanels({ pauseOrResume, operate, undo, revoke }, () => isAdmin);
let isAdmin = false;
let round = 0;
let timer = null;

find("panels").append(...panels.sections);
panels.usageBy.addEventListener("change", () => refresh(true));

// --- Login ---

find("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { username, password } = event.target.elements;
  find("log-in").disabled = true;
  find("login-error").textContent = "";
  try {
    await session.logIn(username.value, password.value);
    password.value = "";
    await enter();
  } catch (error) {
    const isWrong = error instanceof Problem && error.status === 401;
    find("login-error").textContent = isWrong ? "Wrong username or password." : error.message;
  } finally {
    find("log-in").disabled = false;
  }
});
find("log-out").addEventListener("click", async () => {
  const ended = session.logOut();
  showLogin();
  await ended;
});

function showLogin(message = "") {
  clearTimeout(timer);
  isAdmin = false;
  find("welcome").hidden = false;
  for (const id of ["desk", "who", "log-out", "freshness"]) find(id).hidden = true;
  find("login-error").textContent = message;
  find("username").focus();
}

async function enter() {
  const { body: account } = await session.send("GET", "account/");
  if (!account.is_admin && !account.is_viewer) {
    showLogin(`${account.username} is neither an admin nor a viewer. An operator can grant these roles.`);
    return;
  }
  isAdmin = account.is_admin;
  find("welcome").hidden = true;
  for (const id of ["desk", "who", "log-out", "freshness"]) find(id).hidden = false;
  find("who").textContent = account.username;
  find("role").hidden = isAdmin;
  find("by-filter").hidden = !isAdmin;
  round = 0;
  await refresh();
  find("main").focus({ preventScroll: true });
}

// --- Panels ---

/** Fetches the panels, and schedules the next time while the page is visible. */
async function refresh(isAll = false) {
  clearTimeout(timer);
  const isSlow = isAll || round % SLOW_ROUNDS === 0;
  try {
    const failed = await fetchPanels(isSlow ? [...panels.live, ...panels.slow] : panels.live);
    round += 1;
    if (failed) showFreshness("waiting", failed.message);
    else showFreshness("live", `As of ${new Date().toLocaleTimeString()}`);
  } catch (error) {
    if (error instanceof Problem && error.status === 403) return showLogin("You are no longer an admin or a viewer.");
    if (error instanceof Problem && error.status === 401) return; // the login is shown
    showFreshness("waiting", error.message);
  }
  clearTimeout(timer);
  if (!document.hidden && find("welcome").hidden) timer = setTimeout(refresh, panels.isBusy() ? BUSY_INTERVAL : INTERVAL);
}

/** Fetches and shows panels. One that the server fails to make does not hold up the others: returns its error, or null. */
async function fetchPanels(wanted) {
  let failed = null;
  for (const [path, show] of wanted) {
    try {
      show((await session.send("GET", `admin/${typeof path === "string" ? path : path()}`)).body);
    } catch (error) {
      if (!(error instanceof Problem && error.status >= 500)) throw error;
      failed ??= error;
    }
  }
  return failed;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && find("welcome").hidden) refresh();
});

function showFreshness(state, text) {
  find("freshness").dataset.state = state;
  find("freshness-text").textContent = text;
}

// --- Changes ---

async function pauseOrResume(row) {
  const isPaused = row.pause !== null;
  const answer = await ask(
    isPaused
      ? { title: `Resume ${row.model}?`, text: "Workers start its prompts again.", yes: "Resume" }
      : {
          title: `Pause ${row.model}?`,
          text: "Its prompts stay queued until you resume it. Prompts that are being answered finish.",
          yes: "Pause",
          asksReason: true,
        },
  );
  if (!answer) return;
  const body = isPaused || !answer.reason ? {} : { reason: answer.reason };
  const path = `admin/models/${encodeURIComponent(row.model)}/${isPaused ? "resume" : "pause"}/`;
  await change("POST", path, isPaused ? undefined : body, `${row.model} is ${isPaused ? "resumed" : "paused"}.`);
}

/** Counts the prompts that match, asks for confirmation, and starts the operation. */
async function operate(action, filter) {
  try {
    const { body: counted } = await session.send("POST", "admin/operations/", { body: { action, filter, dry_run: true } });
    if (!counted.count) return notify(`There are no prompts to ${action}.`);
    if (counted.count > counted.max_count) {
      return notify(`${counted.count.toLocaleString("en")} prompts match, too many for one operation. Narrow the filter, such as by a time.`);
    }
    const prompts = counted.count === 1 ? "1 prompt" : `${counted.count.toLocaleString("en")} prompts`;
    const users = counted.users === 1 ? "1 user" : `${counted.users.toLocaleString("en")} users`;
    const verb = action === "retry" ? "Retry" : "Cancel";
    const answer = await ask({
      title: `${verb} ${prompts} of ${users}?`,
      text: filterText(filter),
      yes: `${verb} ${prompts}`,
      isDanger: action === "cancel",
    });
    if (!answer) return;
    const body = { action, filter, expected_count: counted.count };
    const { body: operation } = await session.send("POST", "admin/operations/", { body });
    notify(`Operation ${operation.id} has started.`);
    await refresh();
  } catch (error) {
    notify(error.message);
  }
}

async function undo(row) {
  const answer = await ask({
    title: `Undo operation ${row.id}?`,
    text:
      row.action === "retry"
        ? "No more prompts are retried. Retried prompts that no worker has started get their earlier status back."
        : "No more prompts are cancelled. Cancelled prompts stay cancelled.",
    yes: "Undo",
  });
  if (answer) await change("POST", `admin/operations/${row.id}/undo/`, undefined, `Operation ${row.id} is being undone.`);
}

async function revoke(row) {
  const answer = await ask({
    title: `Revoke ${row.prefix}…?`,
    text: `“${row.name}” of ${row.user.username ?? `#${row.user.id}`} stops working for good.`,
    yes: "Revoke",
    isDanger: true,
  });
  if (answer) await change("DELETE", `admin/keys/${row.id}/`, undefined, "The key is revoked.", true);
}

async function change(method, path, body, done, isAll = false) {
  try {
    await session.send(method, path, { body });
    notify(done);
  } catch (error) {
    notify(error.message);
  }
  await refresh(isAll);
}

// --- The filter ---

function showStatuses() {
  const all = new Option(form.elements.action.value === "retry" ? "failed (default)" : "all", "");
  form.elements.status.replaceChildren(all, ...STATUSES[form.elements.action.value].map((name) => new Option(name)));
}
form.elements.action.addEventListener("change", showStatuses);
showStatuses();

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  find("filter-error").textContent = "";
  try {
    await operate(form.elements.action.value, await readFilter());
  } catch (error) {
    find("filter-error").textContent = error.message;
  }
});

/** The filter of the form. Throws an error if there is no such user. */
async function readFilter() {
  const { status, model, user, error, since, until, batch, operation } = form.elements;
  const filter = {};
  for (const { name, value } of [status, model, error, batch]) if (value.trim()) filter[name] = value.trim();
  for (const { name, value } of [since, until]) if (value) filter[name] = new Date(value).toISOString();
  if (operation.value) filter.operation = Number(operation.value);
  if (user.value.trim()) {
    const query = new URLSearchParams({ username: user.value.trim() });
    const { body } = await session.send("GET", `admin/users/?${query}`);
    if (!body.length) throw new Error(`There is no user ${user.value.trim()}.`);
    filter.user = body[0].id;
  }
  return filter;
}

// --- Start ---

/** Enters with the login of this browser. While the server is unavailable, tries again. */
async function resume() {
  try {
    await enter();
  } catch (error) {
    if (error instanceof Problem && error.status === 401) return; // the login form says so
    if (find("welcome").hidden) showLogin(error.message);
    setTimeout(() => session.username && find("desk").hidden && resume(), INTERVAL);
  }
}

if (await session.resume()) await resume();
else showLogin();
