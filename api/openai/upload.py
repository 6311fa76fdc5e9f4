"""Uploads: multipart bodies whose file goes into the database as it arrives, a chunk at a time.

An upload may take longer than other requests, as long as it makes progress: each byte that arrives gives it time for
more, so that a sender who is slower than MIN_BYTES_PER_SECOND is refused like one who does not send.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import IO, Any, NamedTuple, cast

from flask import Request
from sqlalchemy import Engine
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.formparser import FormDataParser

from shared.batches import files
from shared.batches.files import FileWriter, StoredFile
from shared.db.models import FilePurpose
from shared.errors import InvalidFieldsError, UserLimitError

MIN_BYTES_PER_SECOND = 64 * 1024
#: What a multipart body may have besides its file.
_OTHER_BYTES = 64 * 1024
#: What werkzeug holds in memory: what it has read and not passed on yet, 64 KiB or a little more, and the fields.
_PARSER_BYTES = 512 * 1024
_MAX_PARTS = 10
_MAX_FILENAME = 255
_MULTIPART = "multipart/form-data"


class UploadLimits(NamedTuple):
    """The most bytes of a file, and of all files of a user."""

    file: int
    user: int


class Upload:
    """Receives one file of a user."""

    def __init__(self, engine: Engine, user_id: int, limits: UploadLimits) -> None:
        self._engine = engine
        self._user_id = user_id
        self._limits = limits
        self._file_id: int | None = None

    def receive(self, request: Request) -> StoredFile:
        """Read the request's body, and store its file.

        Raises:
            UnsupportedMediaType, RequestEntityTooLarge, InvalidFieldsError: the body is not what is wanted.
            UserLimitError: the user's files have too many bytes.
        """
        if request.mimetype != _MULTIPART:
            raise UnsupportedMediaType(f"Send the file as {_MULTIPART}.")
        request.max_content_length = self._limits.file + _OTHER_BYTES
        try:
            return self._receive(request)
        except BaseException:
            self._discard()
            raise

    def _receive(self, request: Request) -> StoredFile:
        with self._engine.connect() as connection:
            left = self._limits.user - files.used_bytes(connection, self._user_id)
            if left < min(request.content_length or 0, self._limits.file) - _OTHER_BYTES or left <= 0:
                raise self._full()
            self._file_id = files.begin(connection, self._user_id, FilePurpose.BATCH)
        writer = FileWriter(self._add, max_bytes=min(self._limits.file, left))
        try:
            fields, uploaded = self._parse(request, writer)
        except OverflowError:
            raise (RequestEntityTooLarge() if writer.size > self._limits.file else self._full()) from None
        filename = _check(fields, uploaded)
        writer.close()
        with self._engine.connect() as connection:
            return files.finish(connection, self._file_id, filename)

    def _parse(self, request: Request, writer: FileWriter) -> tuple[Mapping[str, str], Mapping[str, str | None]]:
        """The text fields of the body, and the names of its files by their fields."""
        extend = _deadline_extension(request)
        streams: list[_FileStream] = []

        def open_stream(*_: Any, **__: Any) -> IO[bytes]:
            streams.append(_FileStream(writer, extend, is_first=not streams))
            return cast(IO[bytes], streams[-1])

        parser = FormDataParser(
            open_stream,
            max_form_memory_size=_PARSER_BYTES,
            max_content_length=request.max_content_length,
            max_form_parts=_MAX_PARTS,
        )
        options = dict(request.mimetype_params)
        _, form, found = parser.parse(request.stream, request.mimetype, request.content_length, options)
        if len(streams) > 1:
            raise InvalidFieldsError("must be one file", ["file"])
        return form, {name: each.filename for name, each in found.items()}

    def _add(self, number: int, data: bytes) -> None:
        with self._engine.connect() as connection:
            files.add_chunk(connection, cast(int, self._file_id), number, data)

    def _discard(self) -> None:
        """Delete what was stored. If the database is unavailable, the cleaner does it."""
        if self._file_id is not None:
            with self._engine.connect() as connection:
                files.delete(connection, self._user_id, self._file_id)

    def _full(self) -> UserLimitError:
        message = f"Your files may have {self._limits.user} bytes together. Delete some. (USER_FILE_BYTES)"
        return UserLimitError(message, limit="USER_FILE_BYTES")


class _FileStream:
    """What werkzeug writes a file of the body to."""

    def __init__(self, writer: FileWriter, extend: Callable[[int], None], *, is_first: bool) -> None:
        self._writer, self._extend, self._is_first = writer, extend, is_first

    def write(self, data: bytes) -> int:
        self._extend(len(data))
        return self._writer.write(data) if self._is_first else len(data)

    def seek(self, *_: int) -> int:
        return 0

    def close(self) -> None:
        """Nothing is open."""


def _deadline_extension(request: Request) -> Callable[[int], None]:
    """Called with the number of bytes that have arrived: moves the deadline of the request."""
    client = request.environ.get("gunicorn.socket")
    if not hasattr(client, "extend_request"):
        return lambda _: None
    return partial(_extend, client)


def _extend(client: Any, size: int) -> None:
    client.extend_request(size / MIN_BYTES_PER_SECOND)


def _check(fields: Mapping[str, str], uploaded: Mapping[str, str | None]) -> str:
    """The name of the file. Raises InvalidFieldsError if the fields are not the wanted ones."""
    unknown = sorted((fields.keys() | uploaded.keys()) - {"purpose", "file"})
    if unknown:
        raise InvalidFieldsError("is not a known field", unknown)
    if "file" not in uploaded:
        raise InvalidFieldsError("must be a file", ["file"])
    if fields.get("purpose") != FilePurpose.BATCH:
        raise InvalidFieldsError("must be batch", ["purpose"])
    name = uploaded["file"] or ""
    if "\0" in name or len(name) > _MAX_FILENAME:
        raise InvalidFieldsError(f"must have a name of {_MAX_FILENAME} characters or fewer", ["file"])
    return name
