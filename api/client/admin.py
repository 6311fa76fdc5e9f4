"""The calls of admins; viewers may make those that read. The API's reference describes the resources."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast
from urllib.parse import quote

from .http import json_list, json_object
from .pages import read_pages
from .resources import UsageReport
from .retries import Sleep
from .session import Session

Action = Literal["retry", "cancel"]
AdminUsageBy = Literal["day", "model", "key", "user"]
Resource = dict[str, Any]

#: The statuses of operations that have not ended.
_UNFINISHED = ("running", "undoing")
_POLL_SECONDS = 1.0


class AdminClient:
    """The queue, failures, workers and models of all users. Methods raise the errors of `Client`; 403 for others."""

    def __init__(self, session: Session, sleep: Sleep) -> None:
        self._session = session
        self._sleep = sleep

    def queue(self) -> Resource:
        """Return queued and running prompts: `models`, `users`, `running`, `providers`."""
        return self._object("/admin/queue/", "models", "users", "running", "providers")

    def failures(self, *, since: str | None = None) -> list[Resource]:
        """Return failures by their error, the most frequent first: of a day, or since a time."""
        return self._list("/admin/failures/", since=since)

    def workers(self) -> list[Resource]:
        """Return the worker hosts."""
        return self._list("/admin/workers/")

    def models(self) -> list[Resource]:
        """Return the states of the models."""
        return self._list("/admin/models/")

    def pause(self, model: str, reason: str | None = None) -> Resource:
        """Pause a model. Return its state."""
        return self._change(
            f"/admin/models/{quote(model, safe='')}/pause/", {} if reason is None else {"reason": reason}
        )

    def resume(self, model: str) -> Resource:
        """Resume a model. Return its state."""
        return self._change(f"/admin/models/{quote(model, safe='')}/resume/")

    def count(self, action: Action, wanted: Mapping[str, Any]) -> Resource:
        """Count the prompts that an operation would retry or cancel, by model.

        Args:
            wanted: The filter: `status`, `model`, `user` (an id), `error`, `since`, `until`, `batch`, `ids`,
                `operation`.
        """
        return self._change("/admin/operations/", {"action": action, "filter": dict(wanted), "dry_run": True}, "count")

    def begin(self, action: Action, wanted: Mapping[str, Any], *, expected_count: int) -> Resource:
        """Retry or cancel the prompts that match, at most that many. Return the operation.

        Raises ProblemError (409) if more match by now.
        """
        body = {"action": action, "filter": dict(wanted), "expected_count": expected_count}
        response = self._session.request("POST", "/admin/operations/", json=body, idempotent=False)
        return cast(Resource, json_object(response, "id", "status"))

    def operations(self, *, limit: int | None = None) -> Iterator[Resource]:
        """Yield operations, the newest first."""
        return read_pages(self._session, "/admin/operations/", limit)

    def operation(self, operation_id: int) -> Resource:
        """Return an operation."""
        return self._object(f"/admin/operations/{operation_id}/", "id", "status")

    def wait(self, operation_id: int, on_progress: Callable[[Resource], object] = lambda _: None) -> Resource:
        """Return an operation once it has ended. `on_progress` is called with it once a second."""
        while True:
            operation = self.operation(operation_id)
            on_progress(operation)
            if operation["status"] not in _UNFINISHED:
                return operation
            self._sleep(_POLL_SECONDS)

    def undo(self, operation_id: int) -> Resource:
        """Undo what an operation has not started. Return the operation."""
        return self._change(f"/admin/operations/{operation_id}/undo/", None, "id", "status")

    def users(self, *, username: str | None = None, limit: int | None = None) -> Iterator[Resource]:
        """Yield the users, the newest first, or the one of this name."""
        return read_pages(self._session, "/admin/users/", limit, username=username)

    def keys(self, *, user: int | None = None, limit: int | None = None) -> Iterator[Resource]:
        """Yield API keys, the newest first; of all users, or of the one with this id."""
        return read_pages(self._session, "/admin/keys/", limit, user=user)

    def revoke_key(self, key_id: int) -> None:
        """Revoke an API key of any user."""
        self._session.delete(f"/admin/keys/{key_id}/")

    def usage(self, *, by: AdminUsageBy = "day", since: str | None = None, until: str | None = None) -> UsageReport:
        """Return what all users used, as `Client.usage`."""
        given = {name: day for name, day in (("since", since), ("until", until)) if day is not None}
        response = self._session.request("GET", "/admin/usage/", params={"by": by, **given})
        return cast(UsageReport, {"budgets": [], **json_object(response, "rows", "total")})

    def audit(self, *, user: int | None = None, limit: int | None = None) -> Iterator[Resource]:
        """Yield the entries of the audit trail, the newest first; of all users, or of what concerns one."""
        return read_pages(self._session, "/admin/audit/", limit, user=user)

    def _object(self, path: str, *required: str) -> Resource:
        return cast(Resource, json_object(self._session.request("GET", path), *required))

    def _list(self, path: str, **params: object) -> list[Resource]:
        given = {name: value for name, value in params.items() if value is not None}
        return cast("list[Resource]", json_list(self._session.request("GET", path, params=given)))

    def _change(self, path: str, body: object = None, *required: str) -> Resource:
        return cast(Resource, json_object(self._session.request("POST", path, json=body), *required))
