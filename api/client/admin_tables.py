"""The resources of admins as text: rows of tables, and sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from .output import local_time, one_line, table

Resource = Mapping[str, Any]


def overview_text(queue: Resource) -> str:
    """Describe the queue: a table of the models, and one of the users."""
    states = {state["model"]: model_state(state) for state in queue["providers"]}
    loads = {load["model"]: load for load in queue["models"]}
    models = [
        (*_load_cells(loads.get(model)), states.get(model, "available"), model)
        for model in sorted(loads.keys() | states.keys())
    ]
    users = [(*_load_cells(load), load["model"], name(load["user"])) for load in queue["users"]]
    parts = [table([("QUEUED", "RUNNING", "OLDEST", "STATE", "MODEL"), *models], None)]
    if users:
        parts.append(table([("QUEUED", "RUNNING", "OLDEST", "MODEL", "USER"), *users], None))
    return "\n\n".join("\n".join(lines) for lines in parts)


def _load_cells(load: Resource | None) -> tuple[str, str, str]:
    if load is None:
        return "0", "0", ""
    return f"{load['queued']:,}", f"{load['running']:,}", duration(load["oldest_waiting_seconds"])


def model_state(state: Resource) -> str:
    """Whether a model is available; if not, why."""
    if pause := state["pause"]:
        return one_line(f"paused by {name(pause['by'])}{': ' + pause['reason'] if pause['reason'] else ''}")
    if state["paused_until"] is not None:
        return one_line(f"unavailable: {state['detail']}")
    return "available"


def model_row(state: Resource) -> Sequence[str]:
    return one_line(state["model"]), model_state(state)


def running_row(prompt: Resource) -> Sequence[str]:
    cells = (str(prompt["id"]), str(prompt["attempt"]), local_time(prompt["queued_at"]))
    return *cells, local_time(prompt["leased_until"]), one_line(prompt["model"]), name(prompt["user"])


def failure_row(group: Resource) -> Sequence[str]:
    counts = (f"{group['count']:,}", f"{group['users']:,}", local_time(group["last_at"]))
    return *counts, one_line(group["model"] or ""), one_line(group["error"] or "(removed)")


def worker_row(host: Resource) -> Sequence[str]:
    tasks = f"{host['active_tasks']} of {host['concurrency']} {host['pool']}"
    state = "lost" if host["is_lost"] else "running"
    return host["host"], str(host["pid"]), state, tasks, local_time(host["started_at"]), " ".join(host["models"])


def user_row(user: Resource) -> Sequence[str]:
    role = "admin" if user["is_admin"] else "viewer" if user["is_viewer"] else "user"
    cells = (str(user["id"]), role, local_time(user["created_at"]), f"{user['unfinished']:,}")
    return *cells, f"{user['this_month']['total_tokens']:,}", user["username"]


def key_row(key: Resource) -> Sequence[str]:
    used = "never" if key["last_used_at"] is None else local_time(key["last_used_at"])
    state = "revoked" if key["revoked_at"] else "live"
    return str(key["id"]), key["prefix"], state, used, name(key["user"]), one_line(key["name"])


def audit_row(entry: Resource) -> Sequence[str]:
    details = ", ".join(f"{field}={value}" for field, value in entry["details"].items())
    actor = name(entry["actor"]) if entry["actor"] else entry["address"]
    return local_time(entry["at"]), actor, entry["action"], name(entry["user"]), one_line(details)


def operation_row(operation: Resource) -> Sequence[str]:
    progress = f"{operation['changed'] + operation['skipped']:,} of {operation['total']:,}"
    given = ", ".join(f"{field}={value}" for field, value in operation["filter"].items())
    cells = (str(operation["id"]), operation["action"], operation["status"], progress, name(operation["actor"]))
    return *cells, one_line(given)


def operation_text(operation: Resource) -> str:
    """Describe the progress of an operation."""
    done = "retried" if operation["action"] == "retry" else "cancelled"
    head = f"Operation {operation['id']} is {operation['status']}"
    parts = [f"{operation['changed']:,} of {operation['total']:,} prompts {done}"]
    parts += [f"{operation[each]:,} {each}" for each in ("skipped", "undone") if operation[each]]
    return f"{head}: {', '.join(parts)}."


def name(user: Resource | None) -> str:
    """The name of a user; the id if the account is deleted."""
    if user is None:
        return ""
    return user["username"] or f"#{user['id']}"


def duration(seconds: float | None) -> str:
    """A time such as 5 s, 3 min or 2 h."""
    if seconds is None:
        return ""
    for unit, size in (("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
