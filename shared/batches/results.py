"""The output and error files of a batch, in JSON Lines as OpenAI's API has them, written in constant memory.

{"id": "batch_req_7", "custom_id": "my-1", "response": {"status_code": 200, "request_id": …, "body": {…}}, "error": null}
{"id": "batch_req_8", "custom_id": "my-2", "response": null, "error": {"code": "batch_expired", "message": …}}
"""  # noqa: E501

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from pydantic_core import to_json
from sqlalchemy import BigInteger, bindparam, select
from sqlalchemy.orm import Session

from shared.batches import files, lines
from shared.batches.endpoints import ENDPOINTS
from shared.batches.files import FileWriter
from shared.batches.leases import BatchLease
from shared.batches.lines import Line
from shared.db.models import FilePurpose, Prompt, Status
from shared.openai.response_resource import StoredResponse
from shared.prompts.queries import COLUMNS, PromptRow

#: How many prompts, with answers of up to MAX_ANSWER_BYTES, are in memory at a time.
PAGE = 20

_PAGE = select(*COLUMNS, Prompt.batch_line, Prompt.request_id, Prompt.request, Prompt.api_request).where(
    Prompt.batch_id == bindparam("batch_id", type_=BigInteger),
    Prompt.batch_line >= bindparam("first", type_=BigInteger),
    Prompt.batch_line < bindparam("end", type_=BigInteger),
)
#: The errors of lines without an answer.
_MESSAGES = {
    "batch_expired": "The completion window of the batch was over before this line was answered.",
    "batch_cancelled": "The batch was cancelled before this line was answered.",
    "prompt_cancelled": "The prompt of this line was cancelled.",
    "prompt_deleted": "The prompt of this line was deleted.",
}


class WrittenFiles(NamedTuple):
    """The files of a batch by id, and how many lines each has. A file without lines is not stored."""

    output_file_id: int | None
    error_file_id: int | None
    completed_lines: int
    failed_lines: int


class _Result(NamedTuple):
    stored: StoredResponse
    request_id: str

    @property
    def prompt(self) -> PromptRow:
        return self.stored.prompt


class _ResultFile:
    """A file that is stored when it gets its first line."""

    def __init__(self, session: Session, batch: BatchLease, name: str) -> None:
        self._session, self._batch, self._name = session, batch, name
        self._writer: FileWriter | None = None
        self.id: int | None = None
        self.lines = 0

    def add(self, line: Mapping[str, Any]) -> None:
        if self._writer is None:
            self.id = files.begin(self._session, self._batch.user_id, FilePurpose.BATCH_OUTPUT)
            self._writer = FileWriter(partial(files.add_chunk, self._session, self.id))
        self._writer.write(to_json(line) + b"\n")
        self.lines += 1

    def finish(self) -> None:
        if self._writer is not None and self.id is not None:
            self._writer.close()
            files.finish(self._session, self.id, f"batch_{self._batch.id}_{self._name}.jsonl")


def write(session: Session, batch: BatchLease, input_lines: Iterable[Line], unanswered: str) -> WrittenFiles:
    """Write both files in the session's transaction. All prompts of the batch have ended.

    Args:
        input_lines: The lines of its input file.
        unanswered: The code of the error of lines that were cancelled with the batch, or were not stored.
    """
    output, error = _ResultFile(session, batch, "output"), _ResultFile(session, batch, "error")
    found: dict[int, _Result] = {}
    for line in input_lines:
        if (line.number - 1) % PAGE == 0 and line.number <= batch.stored_lines:
            found = _read(session, batch.id, line.number)
        custom_id, result = lines.custom_id(line), found.get(line.number)
        if result is not None and result.prompt.status == Status.COMPLETED:
            output.add(_answered(batch, line.number, custom_id, result))
        else:
            code = unanswered if line.number > batch.stored_lines else _code(result, unanswered)
            error.add(_failed(batch, line.number, custom_id, code, result))
    output.finish()
    error.finish()
    return WrittenFiles(output.id, error.id, output.lines, error.lines)


def _read(session: Session, batch_id: int, first: int) -> dict[int, _Result]:
    rows = session.execute(_PAGE, {"batch_id": batch_id, "first": first, "end": first + PAGE})
    return {row.batch_line: _Result(StoredResponse.from_row(row), row.request_id) for row in rows}


def _answered(batch: BatchLease, number: int, custom_id: str, result: _Result) -> dict[str, Any]:
    body = ENDPOINTS[batch.endpoint].render(result.stored)
    response = {"status_code": 200, "request_id": result.request_id, "body": body}
    return {**_head(batch, number, custom_id), "response": response, "error": None}


def _failed(batch: BatchLease, number: int, custom_id: str, code: str, result: _Result | None) -> dict[str, Any]:
    message = _MESSAGES.get(code) or (result and result.prompt.error) or "The prompt of this line failed."
    return {**_head(batch, number, custom_id), "response": None, "error": {"code": code, "message": message}}


def _code(result: _Result | None, unanswered: str) -> str:
    if result is None:
        return "prompt_deleted"
    if result.prompt.status == Status.FAILED:
        return "prompt_failed"
    return unanswered if result.prompt.error is not None else "prompt_cancelled"


def _head(batch: BatchLease, number: int, custom_id: str) -> dict[str, Any]:
    return {"id": f"batch_req_{batch.id}_{number}", "custom_id": custom_id}
