"""The lines of a batch's input file: read in constant memory, and checked.

{"custom_id": "my-1", "method": "POST", "url": "/v1/chat/completions", "body": {…}}
"""

import codecs
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from shared import validation_messages
from shared.batches import files
from shared.batches.endpoints import ENDPOINTS
from shared.errors import InvalidFieldsError, PromptwireError
from shared.openai import error_messages
from shared.openai.fields import Text
from shared.openai.parsed import ParsedRequest
from shared.settings import Settings

#: The most lines of a batch, and errors that are listed of one.
MAX_LINES = 50_000
MAX_ERRORS = 20
_MAX_MESSAGE = 500
_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_Id = Annotated[Text, Field(min_length=1, max_length=512)]


class LineFields(BaseModel):
    """A line."""

    model_config = ConfigDict(extra="forbid", strict=True)

    custom_id: _Id
    method: Literal["POST"]
    url: str
    body: dict[str, Any]


class Line(NamedTuple):
    """A line of a file, without its end. `number` counts from 1; `end` is the position in the file after it."""

    number: int
    data: bytes
    end: int


class BatchLine(NamedTuple):
    """A valid line: its number, and the prompt that it asks for."""

    number: int
    end: int
    custom_id: str
    parsed: ParsedRequest


class LineError(Exception):
    """A line, or the file, that is not valid."""

    def __init__(self, code: str, message: str, *, line: int | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message[:_MAX_MESSAGE], "param": param, "line": line}


def read(
    read_chunk: Callable[[int], bytes | None], *, max_bytes: int, position: int = 0, number: int = 0
) -> Iterator[Line]:
    """The lines of a file. The last one need not end with a line feed.

    Args:
        read_chunk: Reads a chunk of the file by its number.
        max_bytes: The most that a line may have.
        position, number: Where to begin: after this line, which ends there.

    Raises:
        LineError: a line is too long.
    """
    first, skipped = divmod(position, files.CHUNK_BYTES)
    rest = bytearray()
    for chunk in files.chunks(read_chunk, first):
        rest += memoryview(chunk)[skipped:]
        skipped, begin = 0, 0
        while (end := rest.find(b"\n", begin)) >= 0:
            number, position = number + 1, position + end + 1 - begin
            yield Line(number, bytes(memoryview(rest)[begin:end]), position)
            begin = end + 1
        del rest[:begin]
        if len(rest) > max_bytes:
            raise LineError("line_too_long", f"The line has more than {max_bytes} bytes.", line=number + 1)
    if rest:
        yield Line(number + 1, bytes(rest), position + len(rest))


def parse(line: Line, endpoint: str, max_bytes: int) -> BatchLine:
    """The prompt that a line asks for.

    Raises:
        LineError: it is not valid.
    """
    if len(line.data) > max_bytes:
        raise LineError("line_too_long", f"The line has more than {max_bytes} bytes.", line=line.number)
    try:
        fields = LineFields.model_validate(from_json(line.data, allow_inf_nan=False))
        _check(fields, endpoint)
        return BatchLine(line.number, line.end, fields.custom_id, ENDPOINTS[endpoint].parse(fields.body))
    except ValidationError as error:
        raise _invalid(error, line.number) from None
    except InvalidFieldsError as error:
        raise LineError("invalid_request", str(error), line=line.number, param=_first(error.fields)) from None
    except PromptwireError as error:
        raise LineError("invalid_request", str(error), line=line.number) from None
    except ValueError as error:
        raise LineError("invalid_json_line", _not_json(line.data, error), line=line.number) from None


def _not_json(data: bytes, error: ValueError) -> str:
    if not data.strip():
        return "The line is empty."
    if data.startswith(_BYTE_ORDER_MARKS):
        return "The line begins with a byte order mark. Save the file as UTF-8 without one."
    return f"The line is not valid JSON: {str(error).replace(' at line 1 column ', ' at column ')}."


def custom_id(line: Line) -> str:
    """The `custom_id` of a line that was valid when its batch was validated."""
    value: str = from_json(line.data)["custom_id"]
    return value


def parse_all(lines: Iterable[Line], endpoint: str, settings: Settings) -> Iterator[BatchLine | LineError]:
    """Each line, or what is wrong with it. Ends with an error after MAX_LINES lines, or without any."""
    seen: set[bytes] = set()
    is_empty = True
    try:
        for line in lines:
            is_empty = False
            if line.number > MAX_LINES:
                yield LineError("too_many_lines", f"A batch may have {MAX_LINES} lines.", line=line.number)
                return
            yield _parse_unique(line, endpoint, settings.max_body_bytes, seen)
    except LineError as error:  # a line that is too long to read on
        yield error
        return
    if is_empty:
        yield LineError("empty_file", "The file has no lines.")


def _parse_unique(line: Line, endpoint: str, max_bytes: int, seen: set[bytes]) -> BatchLine | LineError:
    try:
        parsed = parse(line, endpoint, max_bytes)
    except LineError as error:
        return error
    # A hash, because 50,000 ids may have 25 MB.
    digest = hashlib.blake2b(parsed.custom_id.encode(), digest_size=16).digest()
    if digest in seen:
        message = f"The custom_id {parsed.custom_id} is that of an earlier line."
        return LineError("duplicate_custom_id", message, line=line.number, param="custom_id")
    seen.add(digest)
    return parsed


def _check(fields: LineFields, endpoint: str) -> None:
    if fields.body.get("stream"):
        raise InvalidFieldsError("A line of a batch cannot be streamed.", ["stream"])
    if (url := fields.url) != endpoint:
        raise InvalidFieldsError(f"The url is {url}, but the endpoint of the batch is {endpoint}.", ["url"])


def _invalid(error: ValidationError, number: int) -> LineError:
    first = error.errors(include_url=False, include_input=False)[0]
    name = error_messages.parameter_name(validation_messages.field_name(first["loc"]))
    message = error_messages.sentence(name or "The line", validation_messages.describe(first))
    return LineError("invalid_request", message, line=number, param=name or None)


def _first(fields: list[str]) -> str | None:
    return fields[0] if fields else None
