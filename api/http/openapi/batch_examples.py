"""Examples of files and batches."""

from typing import Any

_WRITTEN = 1796032800  # 2026-11-30T10:00:00Z
_FILE = {
    "id": "file-1",
    "object": "file",
    "bytes": 1804,
    "created_at": _WRITTEN,
    "expires_at": None,
    "filename": "questions.jsonl",
    "purpose": "batch",
    "status": "processed",
    "status_details": None,
}
_OUTPUT = _FILE | {"id": "file-2", "filename": "batch_1_output.jsonl", "purpose": "batch_output", "bytes": 5230}
_NEW = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "errors": None,
    "input_file_id": "file-1",
    "completion_window": "24h",
    "status": "validating",
    "output_file_id": None,
    "error_file_id": None,
    "created_at": _WRITTEN + 5,
    "in_progress_at": None,
    "expires_at": _WRITTEN + 86_405,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {"total": 0, "completed": 0, "failed": 0},
    "metadata": {"dataset": "questions"},
}
_RUNNING = _NEW | {
    "status": "in_progress",
    "in_progress_at": _WRITTEN + 6,
    "request_counts": {"total": 10, "completed": 4, "failed": 0},
}
_COMPLETED = _RUNNING | {
    "status": "completed",
    "output_file_id": "file-2",
    "finalizing_at": _WRITTEN + 20,
    "completed_at": _WRITTEN + 21,
    "request_counts": {"total": 10, "completed": 10, "failed": 0},
}
_ERROR = {"code": "duplicate_custom_id", "message": "The custom_id a is that of an earlier line.", "line": 2}
_FAILED = _NEW | {
    "status": "failed",
    "failed_at": _WRITTEN + 6,
    "errors": {"object": "list", "data": [_ERROR | {"param": "custom_id"}]},
}
_CANCELLING = _RUNNING | {"status": "cancelling", "cancelling_at": _WRITTEN + 9}


def _page(*objects: dict[str, Any]) -> dict[str, Any]:
    ends = {"first_id": objects[0]["id"], "last_id": objects[-1]["id"]}
    return {"object": "list", "data": list(objects), **ends, "has_more": False}


#: Request bodies, by model.
BODIES: dict[str, dict[str, Any]] = {
    "NewBatchBody": {
        "a file of chat completions": {
            "input_file_id": "file-1",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"dataset": "questions"},
        }
    }
}

#: Response bodies, by a short name: summary, value.
ANSWERS: dict[str, tuple[str, Any]] = {
    "file": ("Uploaded", _FILE),
    "output file": ("Answers of a batch", _OUTPUT),
    "files": ("Two files", _page(_OUTPUT, _FILE)),
    "deleted file": ("Deleted", {"id": "file-1", "object": "file", "deleted": True}),
    "new batch": ("Just created", _NEW),
    "running batch": ("Being answered", _RUNNING),
    "completed batch": ("Completed", _COMPLETED),
    "failed batch": ("Its file is not valid", _FAILED),
    "cancelling batch": ("Being cancelled", _CANCELLING),
    "batches": ("One batch", _page(_COMPLETED)),
}

_EVENT_FIELDS = (
    *("id", "status", "endpoint", "input_file_id", "output_file_id", "error_file_id", "request_counts", "metadata"),
)


def _event(batch: dict[str, Any], status: str) -> dict[str, Any]:
    data = {name: batch[name] for name in _EVENT_FIELDS} | {"status": status}
    return {"type": f"batch.{status}", "timestamp": "2026-11-30T10:00:21.000Z", "data": data | {"seq": 57}}


#: The bodies of webhooks' requests, by the event's type.
EVENT_BODIES: dict[str, Any] = {
    "batch.completed": _event(_COMPLETED, "completed"),
    "batch.failed": _event(_FAILED, "failed"),
    "batch.expired": _event(_COMPLETED, "expired"),
    "batch.cancelled": _event(_COMPLETED, "cancelled"),
    "batch.progress": {
        "type": "batch.progress",
        "timestamp": "2026-11-30T10:00:08.000Z",
        "data": {name: _RUNNING[name] for name in _EVENT_FIELDS},
    },
}
