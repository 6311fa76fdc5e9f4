"""Batches: a method for each call of the API that concerns files of requests."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict, cast
from uuid import uuid4

from .http import json_object, reading
from .retries import Sleep
from .session import Session


class File(TypedDict):
    """A file, as OpenAI's API has it."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str


class BatchError(TypedDict):
    """What is wrong with a line of a batch's file, or with the file."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(TypedDict):
    """Why a batch failed."""

    data: list[BatchError]


class RequestCounts(TypedDict):
    """The lines of a batch."""

    total: int
    completed: int
    failed: int


class Batch(TypedDict):
    """A batch, as OpenAI's API has it. Times are seconds since 1970."""

    id: str
    endpoint: str
    status: str
    errors: BatchErrors | None
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    completion_window: str
    created_at: int
    expires_at: int
    request_counts: RequestCounts
    metadata: dict[str, str] | None


_POLL_SECONDS = 1.0
#: How long an upload or a download may take without a byte.
_LONG_SECONDS = 60.0
_ENDED = ("completed", "failed", "expired", "cancelled")
_PAGE = 100


class Batches:
    """The user's batches, as `Client.batches`. Errors are those of the client."""

    def __init__(self, session: Session, sleep: Sleep) -> None:
        self._session = session
        self._sleep = sleep

    def upload(self, path: Path) -> File:
        """Upload a file of requests. It is read as it is sent, in constant memory; a retry sends all of it again."""
        with path.open("rb") as file:
            files = {"file": (path.name, file, "application/jsonl")}
            options: dict[str, Any] = {"data": {"purpose": "batch"}, "files": files, "server_wait": _LONG_SECONDS}
            response = self._session.request("POST", "/v1/files", idempotent=False, **options)
        return cast(File, json_object(response, "id", "bytes"))

    def create(
        self,
        input_file_id: str,
        *,
        endpoint: str = "/v1/chat/completions",
        completion_window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Batch:
        """Have an uploaded file answered. Retries never create a second batch.

        Args:
            completion_window: after this time, such as "24h", lines that were not answered are given up.
            key: the idempotency key; random by default.
        """
        body: dict[str, Any] = {
            "input_file_id": input_file_id,
            "endpoint": endpoint,
            "completion_window": completion_window,
        }
        if metadata:
            body["metadata"] = dict(metadata)
        return self._batch("POST", "/v1/batches", json=body, headers={"Idempotency-Key": key or uuid4().hex})

    def show(self, batch_id: str) -> Batch:
        """Return a batch in its present state."""
        return self._batch("GET", f"/v1/batches/{batch_id}")

    def list(self, *, limit: int | None = None) -> Iterator[Batch]:
        """Yield the batches, newest first: at most `limit`, or all."""
        after: str | None = None
        while limit is None or limit > 0:
            page = self._page("/v1/batches", after, _PAGE if limit is None else min(limit, _PAGE))
            yield from cast("list[Batch]", page["data"])
            if not page["has_more"]:
                return
            after = page["last_id"]
            limit = None if limit is None else limit - len(page["data"])

    def cancel(self, batch_id: str) -> Batch:
        """Cancel a batch. What is finished is kept. Raises ProblemError (409) if it has ended."""
        return self._batch("POST", f"/v1/batches/{batch_id}/cancel")

    def wait(self, batch_id: str, on_progress: Callable[[Batch], object] = lambda _: None) -> Batch:
        """Return a batch once it has ended. `on_progress` is called with it once a second."""
        while True:
            batch = self.show(batch_id)
            on_progress(batch)
            if batch["status"] in _ENDED:
                return batch
            self._sleep(_POLL_SECONDS)

    def files(self) -> Iterator[File]:
        """Yield the files, newest first."""
        after: str | None = None
        while True:
            page = self._page("/v1/files", after)
            yield from cast("list[File]", page["data"])
            if not page["has_more"]:
                return
            after = page["last_id"]

    def delete_file(self, file_id: str) -> None:
        """Delete a file. Raises ProblemError (409) if a batch that has not ended still reads it."""
        self._session.delete(f"/v1/files/{file_id}")

    def content(self, file_id: str) -> Iterator[bytes]:
        """Yield the parts of a file: the output or the error file of a batch that has ended.

        Raises:
            UnreachableError: the download was interrupted, so parts are missing. It is not repeated.
        """
        path = f"/v1/files/{file_id}/content"
        response = self._session.request("GET", path, stream_timeout=_LONG_SECONDS)
        with closing(response), reading("The download"):
            yield from response.iter_bytes()

    def _page(self, path: str, after: str | None, limit: int = _PAGE) -> Any:
        params = {"limit": limit} | ({"after": after} if after else {})
        return json_object(self._session.request("GET", path, params=params), "data", "has_more")

    def _batch(self, method: str, path: str, **options: Any) -> Batch:
        return cast(Batch, json_object(self._session.request(method, path, **options), "id", "status"))


def is_whole(batch: Batch) -> bool:
    """Whether every line was answered."""
    return batch["status"] == "completed" and not batch["request_counts"]["failed"]
