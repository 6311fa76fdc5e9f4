// The panels of the console: what each fetches and shows.

import { Table } from "./console-table.js";
import { timeAgo } from "./format.js";

const number = new Intl.NumberFormat("en");

/** `actions` has what the buttons do; `mayChange()` says whether the user may press them. */
export function makePanels(actions, mayChange) {
  const act = (label, run) => ({ title: "", act: { label: (row) => (mayChange() ? label(row) : null), run } });
  const count = (title, name) => ({ title, kind: "number", text: (row) => number.format(row[name]) });
  const time = (title, name) => ({ title, kind: "short", text: (row) => (row[name] ? timeAgo(row[name]) : "") });
  const user = { title: "User", text: ({ user: of }) => userName(of) };
  const oldest = { title: "Oldest", kind: "number", text: (row) => duration(row.oldest_waiting_seconds) };

  const models = new Table({
    id: "models",
    title: "Models",
    empty: "No models.",
    key: (row) => row.model,
    columns: [
      { title: "Model", text: (row) => row.model },
      count("Queued", "queued"),
      count("Running", "running"),
      oldest,
      { title: "State", text: modelState, tone: (row) => (row.pause || row.paused_until ? "bad" : "good") },
      act((row) => (row.pause ? "Resume" : "Pause"), actions.pauseOrResume),
    ],
  });
  const users = new Table({
    id: "waiting",
    title: "Queue by user",
    empty: "No prompts are queued or running.",
    key: (row) => `${row.user.id} ${row.model}`,
    columns: [user, { title: "Model", text: (row) => row.model }, count("Queued", "queued"), count("Running", "running"), oldest],
  });
  const running = new Table({
    id: "running",
    title: "Running prompts, oldest first",
    empty: "No prompts are running.",
    key: (row) => row.id,
    columns: [
      { title: "Prompt", kind: "number", text: (row) => row.id },
      user,
      { title: "Model", text: (row) => row.model },
      { title: "Attempt", kind: "number", text: (row) => row.attempt },
      time("Queued", "queued_at"),
      act(() => "Cancel", (row) => actions.operate("cancel", { ids: [row.id] })),
    ],
  });
  const workers = new Table({
    id: "workers",
    title: "Workers",
    empty: "No workers in the last ten minutes.",
    key: (row) => `${row.host} ${row.pid}`,
    columns: [
      { title: "Host", text: (row) => row.host },
      {
        title: "State",
        kind: "short",
        text: (row) => (row.is_lost ? `lost, seen ${timeAgo(row.seen_at)}` : "running"),
        tone: (row) => (row.is_lost ? "bad" : "good"),
      },
      { title: "Tasks", kind: "number", text: (row) => `${row.active_tasks} of ${row.concurrency} ${row.pool}` },
      { title: "Models", text: (row) => row.models.join(", ") },
      time("Started", "started_at"),
    ],
  });
  const failures = new Table({
    id: "failures",
    title: "Failures of the last 24 hours",
    empty: "No failures.",
    broad: true,
    key: (row) => row.error,
    columns: [
      { title: "Error", text: (row) => row.error ?? "(removed because of its age)" },
      count("Failures", "count"),
      count("Users", "users"),
      time("Last", "last_at"),
      act(
        (row) => (row.error ? "Retry" : null),
        (row) => actions.operate("retry", { error: row.error, since: row.first_at }),
      ),
    ],
  });
  const operations = new Table({
    id: "operations",
    title: "Operations",
    empty: "No prompts were retried or cancelled by filter.",
    broad: true,
    key: (row) => row.id,
    columns: [
      { title: "Operation", kind: "short", text: (row) => `${row.id}: ${row.action}` },
      { title: "Filter", text: (row) => filterText(row.filter) },
      {
        title: "Progress",
        kind: "short",
        text: progressText,
        share: (row) => (row.status === "running" && row.total ? (row.changed + row.skipped) / row.total : null),
      },
      { title: "By", text: (row) => userName(row.actor) },
      time("Started", "created_at"),
      act((row) => (["running", "completed"].includes(row.status) ? "Undo" : null), actions.undo),
    ],
  });
  const usage = new Table({
    id: "usage",
    title: "Usage this month",
    empty: "No usage.",
    key: (row) => row.user?.id ?? row.model ?? row.day,
    columns: [
      { title: "Group", text: (row) => (row.user ? userName(row.user) : row.model ?? row.day) },
      count("Prompts", "prompts"),
      count("Tokens", "total_tokens"),
      { title: "Cost", kind: "number", text: (row) => row.cost.toFixed(2) },
    ],
  });
  const accounts = new Table({
    id: "accounts",
    title: "Users, newest first",
    empty: "No users.",
    key: (row) => row.id,
    columns: [
      { title: "User", text: (row) => row.username },
      { title: "Role", text: (row) => (row.is_admin ? "admin" : row.is_viewer ? "viewer" : "user") },
      count("Keys", "keys"),
      count("Unfinished", "unfinished"),
      time("Created", "created_at"),
    ],
  });
  const keys = new Table({
    id: "keys",
    title: "API keys, newest first",
    empty: "No API keys.",
    key: (row) => row.id,
    columns: [
      { title: "Key", kind: "short", text: (row) => `${row.prefix}…` },
      { title: "Name", text: (row) => row.name },
      user,
      { title: "Last used", kind: "short", text: (row) => (row.last_used_at ? timeAgo(row.last_used_at) : "never") },
      act((row) => (row.revoked_at ? null : "Revoke"), actions.revoke),
    ],
  });
  const audit = new Table({
    id: "audit",
    title: "Audit trail",
    empty: "No entries.",
    key: (row) => row.id,
    columns: [
      time("Time", "at"),
      { title: "Who", text: (row) => (row.actor ? userName(row.actor) : row.address) },
      { title: "Action", text: (row) => row.action },
      { title: "User", text: (row) => userName(row.user) },
    ],
  });

  const by = document.createElement("select");
  by.setAttribute("aria-label", "Group by");
  for (const name of ["user", "model", "day"]) by.add(new Option(`by ${name}`, name));
  usage.heading.append(by);

  let isBusy = false;
  const showOperations = (found) => {
    operations.show(found);
    isBusy = found.some(({ status }) => status === "running" || status === "undoing");
  };
  return {
    /** Whether an operation is running. */
    isBusy: () => isBusy,
    sections: [models, users, failures, operations, running, workers, usage, accounts, keys, audit].map(({ section }) => section),
    usageBy: by,
    /** Fetched every few seconds: a path below `admin/`, and a function that shows the response. */
    live: [
      ["queue/", (queue) => showQueue(queue, { models, users, running })],
      ["models/", (states) => showModels(states, models)],
      ["failures/", (groups) => failures.show(groups)],
      ["operations/?limit=10", showOperations],
      ["workers/", (hosts) => workers.show(hosts)],
    ],
    /** Fetched less often. */
    slow: [
      [() => `usage/?by=${by.value}`, (report) => usage.show(report.rows.slice(0, 20))],
      ["users/?limit=20", (found) => accounts.show(found)],
      ["keys/?limit=20", (found) => keys.show(found)],
      ["audit/?limit=20", (entries) => audit.show(entries)],
    ],
  };
}

let loads = new Map();

function showQueue(queue, { users, running }) {
  loads = new Map(queue.models.map((load) => [load.model, load]));
  users.show(queue.users);
  running.show(queue.running);
}

/** Shows all models, and removed ones that still have prompts. */
function showModels(states, table) {
  const none = { queued: 0, running: 0, oldest_waiting_seconds: null };
  const known = new Set(states.map(({ model }) => model));
  const rows = states.map((state) => ({ ...none, ...loads.get(state.model), ...state }));
  for (const load of loads.values()) {
    if (!known.has(load.model)) rows.push({ ...load, pause: null, paused_until: null, detail: "removed" });
  }
  table.show(rows);
}

function modelState({ pause, paused_until: until, detail }) {
  if (pause) return `paused by ${userName(pause.by)}${pause.reason ? `: ${pause.reason}` : ""}`;
  if (until) return `unavailable: ${detail}`;
  return detail ?? "available";
}

function progressText({ status, total, changed, skipped, undone }) {
  const parts = [`${number.format(changed)} of ${number.format(total)}`];
  if (skipped) parts.push(`${number.format(skipped)} skipped`);
  if (undone) parts.push(`${number.format(undone)} undone`);
  return `${status}, ${parts.join(", ")}`;
}

/** A filter as people read it. Each value is isolated: an error may quote a text that turns round what follows it. */
export function filterText(filter) {
  const show = (name, value) => (["since", "until"].includes(name) ? new Date(value).toLocaleString() : [value].flat().join(", "));
  const parts = Object.entries(filter).map(([name, value]) => `${name}: \u2068${show(name, value)}\u2069`);
  return parts.join(" · ") || "all";
}

export function userName(user) {
  return user ? user.username ?? `#${user.id}` : "";
}

function duration(seconds) {
  if (seconds === null) return "";
  if (seconds >= 7_200) return `${Math.round(seconds / 3_600)} h`;
  return seconds >= 120 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds)} s`;
}
