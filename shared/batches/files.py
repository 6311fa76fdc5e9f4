"""Files: their content in chunks, so that they are in backups, and written and read in constant memory.

A file is invisible until all of it is stored. What an interrupted upload has left is deleted after a day.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db.engine import Executor
from shared.db.models import FilePurpose
from shared.errors import FileInUseError, FileNotStoredError

#: The size of a chunk. Each byte of a file is found by its position.
CHUNK_BYTES = 1024 * 1024
#: When what an interrupted upload has left is deleted. No upload takes that long.
_INTERRUPTED_AFTER = timedelta(days=1)


class StoredFile(NamedTuple):
    """A file without its content."""

    id: int
    purpose: str
    filename: str
    bytes: int
    created_at: datetime


_COLUMNS = ", ".join(StoredFile._fields)
_OF_USER = "user_id = :user_id AND stored_at IS NOT NULL"
_BEGIN = text("""
    INSERT INTO files (user_id, purpose, filename) VALUES (:user_id, :purpose, :filename) RETURNING id
""")
_ADD = text("""
    WITH added AS (INSERT INTO file_chunks (file_id, number, data) VALUES (:file_id, :number, :data))
    UPDATE files SET bytes = bytes + :size WHERE id = :file_id
""")
_FINISH = text(f"""
    UPDATE files SET filename = :filename, stored_at = now()
    WHERE id = :file_id AND stored_at IS NULL RETURNING {_COLUMNS}
""")  # noqa: S608  # nosec B608
_GET = text(f"SELECT {_COLUMNS} FROM files WHERE id = :file_id AND {_OF_USER}")  # noqa: S608  # nosec B608
_USED = text("SELECT coalesce(sum(bytes), 0) FROM files WHERE user_id = :user_id")
_CHUNK = text("SELECT data FROM file_chunks WHERE file_id = :file_id AND number = :number")
_IS_USED = text("""
    SELECT EXISTS (
        SELECT FROM batches WHERE user_id = :user_id AND input_file_id = :file_id AND due_at IS NOT NULL
    )
""")
_LOCK = text("SELECT FROM files WHERE id = :file_id FOR UPDATE")
_DELETE = text("DELETE FROM files WHERE id = :file_id AND user_id = :user_id")
_DELETE_INTERRUPTED = text("DELETE FROM files WHERE stored_at IS NULL AND created_at < now() - :age")
_DELETE_OLD = text("""
    DELETE FROM files WHERE created_at < now() - :age
        AND NOT EXISTS (SELECT FROM batches WHERE input_file_id = files.id AND due_at IS NOT NULL)
""")


class FileWriter:
    """Writes a file, of which it holds one chunk in memory.

    Args:
        add: Called with the number and the data of each chunk.
        max_bytes: The most that the file may have.
    """

    def __init__(self, add: Callable[[int, bytes], None], *, max_bytes: float = float("inf")) -> None:
        self._add = add
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._chunks = 0
        self.size = 0

    def write(self, data: bytes) -> int:
        """Add data.

        Raises:
            OverflowError: the file has more than `max_bytes`.
        """
        self.size += len(data)
        if self.size > self._max_bytes:
            raise OverflowError
        self._buffer += data
        while len(self._buffer) >= CHUNK_BYTES:
            self._flush(CHUNK_BYTES)
        return len(data)

    def close(self) -> None:
        """Write what is left."""
        if self._buffer:
            self._flush(len(self._buffer))

    def _flush(self, size: int) -> None:
        chunk = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        self._add(self._chunks, chunk)
        self._chunks += 1


def begin(executor: Executor, user_id: int, purpose: FilePurpose, filename: str = "") -> int:
    """Begin a file, which is invisible until `finish`. Returns its id."""
    parameters = {"user_id": user_id, "purpose": purpose, "filename": filename}
    return int(executor.execute(_BEGIN, parameters).scalar_one())


def add_chunk(executor: Executor, file_id: int, number: int, data: bytes) -> None:
    """Add the next chunk of a file that was started."""
    executor.execute(_ADD, {"file_id": file_id, "number": number, "data": data, "size": len(data)})


def finish(executor: Executor, file_id: int, filename: str) -> StoredFile:
    """Make the file visible. All of its chunks are stored."""
    row = executor.execute(_FINISH, {"file_id": file_id, "filename": filename}).first()
    if row is None:
        raise FileNotStoredError
    return StoredFile(*row)


def get(executor: Executor, user_id: int, file_id: int) -> StoredFile:
    """The user's file.

    Raises:
        FileNotStoredError: it does not exist, or belongs to another user.
    """
    row = executor.execute(_GET, {"user_id": user_id, "file_id": file_id}).first()
    if row is None:
        raise FileNotStoredError
    return StoredFile(*row)


def page(
    executor: Executor,
    user_id: int,
    *,
    limit: int,
    after: int | None = None,
    purpose: str | None = None,
    oldest_first: bool = False,
) -> Sequence[StoredFile]:
    """The user's files, newest first, beginning after the file `after`."""
    direction, follows = ("ASC", ">") if oldest_first else ("DESC", "<")
    conditions = [_OF_USER]
    conditions += [f"id {follows} :after"] * (after is not None) + ["purpose = :purpose"] * (purpose is not None)
    statement = f"""
        SELECT {_COLUMNS} FROM files WHERE {" AND ".join(conditions)} ORDER BY id {direction} LIMIT :limit
    """  # noqa: S608  # nosec B608
    given = {"user_id": user_id, "limit": limit, "after": after, "purpose": purpose}
    parameters = {name: value for name, value in given.items() if value is not None}
    return [StoredFile(*row) for row in executor.execute(text(statement), parameters)]


def used_bytes(executor: Executor, user_id: int) -> int:
    """The bytes of all files of the user, also of those that are being uploaded."""
    return int(executor.execute(_USED, {"user_id": user_id}).scalar_one())


def chunks(read: Callable[[int], bytes | None], first: int = 0) -> Iterator[bytes]:
    """The chunks of a file, from the first one that is wanted. `read` reads one by its number."""
    number = first
    while (data := read(number)) is not None:
        yield data
        number += 1


def read_chunk(executor: Executor, file_id: int, number: int) -> bytes | None:
    """A chunk of a file; None after the last one."""
    data = executor.execute(_CHUNK, {"file_id": file_id, "number": number}).scalar()
    return None if data is None else bytes(data)


def delete(executor: Executor, user_id: int, file_id: int) -> None:
    """Delete a file, if there is one."""
    executor.execute(_DELETE, {"user_id": user_id, "file_id": file_id})


def delete_unused(session: Session, user_id: int, file_id: int) -> None:
    """Delete a file that the caller has found.

    Raises:
        FileInUseError: it is the input of a batch that has not ended.
    """
    session.execute(_LOCK, {"file_id": file_id})  # a batch that is being created has locked it
    if session.execute(_IS_USED, {"user_id": user_id, "file_id": file_id}).scalar_one():
        raise FileInUseError
    delete(session, user_id, file_id)


def purge_interrupted(session: Session) -> None:
    """Delete what interrupted uploads have left."""
    session.execute(_DELETE_INTERRUPTED, {"age": _INTERRUPTED_AFTER})


def purge_old(session: Session, age: timedelta) -> None:
    """Delete files that are older, unless a batch still reads them."""
    session.execute(_DELETE_OLD, {"age": age})
