"""Files and batches as OpenAI's API has them: queries, bodies and resources."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from api.http.fields import IdempotencyKey
from api.http.openapi.models import Answer, Body, Parameters, Query, example
from shared.batches.files import StoredFile
from shared.openai import ids
from shared.openai.fields import Metadata
from shared.openai.ids import IdPrefix
from shared.request_body import matching

#: The longest completion window, in hours.
MAX_WINDOW_HOURS = 168


class FilePath(Parameters):
    """The id of a file."""

    file_id: str = Field(description="The id of the file.", json_schema_extra=example("file-1"))


class BatchPath(Parameters):
    """The id of a batch."""

    batch_id: str = Field(description="The id of the batch.", json_schema_extra=example("batch_1"))


class BatchHeaders(Parameters):
    idempotency_key: IdempotencyKey = Field(
        None,
        alias="Idempotency-Key",
        description="The same key and body within 24 hours make one batch.",
        json_schema_extra=example("0b1c0d6e-8d4f-4c43-a0c0-5d2f2a3c6a11"),
    )


class BatchesQuery(Query):
    """Which batches to list."""

    after: str | None = Field(None, description="The id of the last batch of the page before.")
    limit: int = Field(20, ge=1, le=100, description="The most batches of a page.")


class FilesQuery(Query):
    """Which files to list."""

    after: str | None = Field(None, description="The id of the last file of the page before.")
    limit: int = Field(10_000, ge=1, le=10_000, description="The most files of a page.")
    order: Literal["asc", "desc"] = Field("desc", description="`desc`: newest first.")
    purpose: Literal["batch", "batch_output"] | None = Field(None, description="Only files of this purpose.")


def _check_window(value: str) -> str:
    if int(value.removesuffix("h")) > MAX_WINDOW_HOURS:
        raise ValueError(f"must be {MAX_WINDOW_HOURS}h or shorter")
    return value


class NewBatchBody(Body):
    """A batch to be created."""

    input_file_id: str
    endpoint: Literal["/v1/chat/completions", "/v1/responses"]
    completion_window: Annotated[
        str, *matching(r"^[1-9][0-9]{0,2}h$", "must be a number of hours, such as 24h"), AfterValidator(_check_window)
    ]
    metadata: Metadata | None = None


class FileObject(Answer):
    """A file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]
    status_details: str | None


class FileList(Answer):
    """A page of files."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(Answer):
    """A deleted file."""

    id: str
    object: Literal["file"]
    deleted: bool


class BatchError(Answer):
    """What is wrong with a line, or with the whole file."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(Answer):
    """Why a batch failed."""

    object: Literal["list"]
    data: list[BatchError]


class RequestCounts(Answer):
    """The lines of a batch, at this moment."""

    total: int
    completed: int
    failed: int


class BatchObject(Answer):
    """A batch."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: Literal[
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
    ]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


class BatchList(Answer):
    """A page of batches."""

    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def file_object(file: StoredFile) -> dict[str, Any]:
    """Render a file."""
    return {
        "id": ids.make(IdPrefix.FILE, file.id),
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": None,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }
