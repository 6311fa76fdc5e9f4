"""Storage of sealed segments: their list is in Postgres, their payloads are there too or under a URL."""

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

import faiss
import fsspec
import structlog
from fsspec.utils import get_protocol
from sqlalchemy import Connection, delete, insert, select, update

from shared.db.engine import BINARY_RESULTS, Sessions
from shared.db.models import SegmentEntry, SegmentPart
from shared.search.faiss import segment
from shared.search.faiss.segment import DamagedSegmentError, Segment
from shared.settings import SettingsError

log = structlog.get_logger(__name__)

#: In the database a payload is split into parts of this size, so that no statement takes long.
PART_BYTES = 4 * 1024 * 1024


class SegmentUnavailableError(Exception):
    """A segment's payload cannot be read now."""


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A segment's entry in the list: it has the log's vectors from `first_seq` to `last_seq`."""

    id: int
    first_seq: int
    last_seq: int
    count: int
    checksum: bytes
    location: str | None
    damaged: bool


_COLUMNS = [getattr(SegmentEntry, name) for name in SegmentInfo.__slots__]


class PayloadStore(Protocol):
    """Stores the bytes of segments."""

    def put(self, connection: Connection, user_id: int, segment_id: int, payload: bytes) -> str | None:
        """Store a payload of a user. Returns its location, if that is not the database."""

    def get(self, connection: Connection, info: SegmentInfo) -> bytes:
        """Return the stored payload. Raises OSError if it cannot be read."""

    def delete(self, info: SegmentInfo) -> None:
        """Delete what remains of a payload after its row was deleted. Raises OSError if that fails."""


class PostgresPayloadStore:
    """Payloads in the table `segment_parts`."""

    def put(self, connection: Connection, user_id: int, segment_id: int, payload: bytes) -> None:
        for number, start in enumerate(range(0, len(payload), PART_BYTES)):
            part = {"segment_id": segment_id, "number": number, "data": payload[start : start + PART_BYTES]}
            connection.execute(insert(SegmentPart).values(part))

    def get(self, connection: Connection, info: SegmentInfo) -> bytes:
        query = "SELECT data FROM segment_parts WHERE segment_id = %(id)s ORDER BY number"
        connection.exec_driver_sql(f"DECLARE parts NO SCROLL BINARY CURSOR FOR {query}", {"id": info.id})
        parts: list[bytes] = []
        while row := connection.exec_driver_sql("FETCH parts", execution_options={BINARY_RESULTS: True}).first():
            parts.append(row[0])
        connection.exec_driver_sql("CLOSE parts")
        return b"".join(parts)

    def delete(self, info: SegmentInfo) -> None:
        """Do nothing: the parts were deleted with the row."""


def check_url(url: str) -> None:
    """Check that fsspec knows the URL's protocol and that its package is installed. Nothing connects.

    Raises:
        SettingsError: it does not, or is not.
    """
    try:
        fsspec.get_filesystem_class(get_protocol(url))
    except (ImportError, ValueError) as error:
        raise SettingsError(f"SEGMENTS_URL: {error}") from error


class FilePayloadStore:
    """Payloads in a folder or a bucket, by any URL that fsspec knows (`file:///srv/segments`, `s3://bucket/segments`)."""

    def __init__(self, url: str) -> None:
        """Raises SettingsError if fsspec cannot use the URL."""
        check_url(url)
        self._files, path = fsspec.url_to_fs(url)
        self._path = path.rstrip("/")

    def put(self, connection: Connection, user_id: int, segment_id: int, payload: bytes) -> str:
        folder = self._folder(user_id)
        location = f"{folder}/{segment_id}-{uuid4().hex}.segment"
        self._files.makedirs(folder, exist_ok=True)
        self._files.pipe_file(location, payload)
        return location

    def get(self, connection: Connection, info: SegmentInfo) -> bytes:
        payload: bytes = self._files.cat_file(info.location)
        return payload

    def delete(self, info: SegmentInfo) -> None:
        self._files.rm_file(info.location)

    def delete_all(self, user_id: int) -> None:
        """Delete all payloads of a user, also those whose rows were never committed. Raises OSError if that fails."""
        folder = self._folder(user_id)
        self._files.invalidate_cache(folder)  # other processes have written there
        with suppress(FileNotFoundError):
            self._files.rm(folder, recursive=True)

    def _folder(self, user_id: int) -> str:
        return f"{self._path}/{user_id}"


class SegmentStorage:
    """The sealed segments of all users."""

    def __init__(self, url: str) -> None:
        """With a URL, new payloads are stored there; those in the database stay readable."""
        self._database = PostgresPayloadStore()
        self._files = FilePayloadStore(url) if url else None

    def list_for_user(self, connection: Connection, user_id: int, embedder: str | None) -> list[SegmentInfo]:
        """List the segments by one embedder, or by all, in order of their numbers; damaged ones included."""
        query = select(*_COLUMNS).where(SegmentEntry.user_id == user_id).order_by(SegmentEntry.first_seq)
        if embedder is not None:
            query = query.where(SegmentEntry.embedder == embedder)
        return [SegmentInfo(*row) for row in connection.execute(query)]

    def add(
        self,
        connection: Connection,
        user_id: int,
        embedder: str,
        covers: tuple[int, int],
        count: int,
        payload: bytes,
    ) -> None:
        """Store a segment of the `count` vectors with numbers from the first to the last of `covers`."""
        values = {
            "user_id": user_id,
            "embedder": embedder,
            "first_seq": covers[0],
            "last_seq": covers[1],
            "count": count,
            "checksum": hashlib.sha256(payload).digest(),
            "faiss_version": faiss.__version__,
        }
        segment_id = connection.execute(insert(SegmentEntry).values(values).returning(SegmentEntry.id)).scalar_one()
        location = (self._files or self._database).put(connection, user_id, segment_id, payload)
        if location is not None:
            connection.execute(update(SegmentEntry).where(SegmentEntry.id == segment_id).values(location=location))

    def read_payload(self, connection: Connection, info: SegmentInfo) -> bytes:
        """Return a segment's payload, whose checksum is not yet verified (see `verify_and_decode`).

        Raises:
            DamagedSegmentError: the payload does not exist any more.
            SegmentUnavailableError: it cannot be read now.
        """
        payloads = self._payload_store(info)
        if payloads is None:
            raise SegmentUnavailableError(f"it is at {info.location}, and SEGMENTS_URL is not set")
        try:
            return payloads.get(connection, info)
        except FileNotFoundError as error:
            raise DamagedSegmentError("its file does not exist any more") from error
        except OSError as error:
            raise SegmentUnavailableError(f"it cannot be read: {error}") from error

    def mark_damaged(self, connection: Connection, info: SegmentInfo) -> None:
        """Mark a segment for replacement by a worker."""
        connection.execute(update(SegmentEntry).where(SegmentEntry.id == info.id).values(damaged=True))

    def delete(self, connection: Connection, infos: Iterable[SegmentInfo]) -> None:
        """Delete segments from the list. Call `delete_payloads` after the commit, for payloads outside the database."""
        ids = [info.id for info in infos]
        connection.execute(delete(SegmentEntry).where(SegmentEntry.id.in_(ids)))

    def delete_payloads(self, infos: Iterable[SegmentInfo]) -> None:
        """Delete the payloads of deleted segments, best effort."""
        for info in infos:
            payloads = self._payload_store(info)
            try:
                if payloads is not None:
                    payloads.delete(info)
            except OSError as error:
                log.warning("segment file not deleted", location=info.location, error=str(error))

    def delete_all(self, sessions: Sessions, user_id: int) -> bool:
        """Delete all segments of a user, each payload before its row. Returns False if a payload may be left."""
        with sessions() as session:
            infos = self.list_for_user(session.connection(), user_id, None)
        left = [info for info in infos if not self._delete_payload_and_row(sessions, info)]
        return not left and self._delete_folder(user_id)

    def _delete_folder(self, user_id: int) -> bool:
        try:
            if self._files is not None:
                self._files.delete_all(user_id)
        except OSError as error:
            log.warning("segment files not deleted", user_id=user_id, error=str(error))
            return False
        return True

    def _delete_payload_and_row(self, sessions: Sessions, info: SegmentInfo) -> bool:
        payloads = self._payload_store(info)
        if payloads is None:
            log.warning("segment file not deleted", location=info.location, error="SEGMENTS_URL is not set")
            return False
        try:
            with suppress(FileNotFoundError):
                payloads.delete(info)
        except OSError as error:
            log.warning("segment file not deleted", location=info.location, error=str(error))
            return False
        with sessions.begin() as session:
            self.delete(session.connection(), [info])
        return True

    def _payload_store(self, info: SegmentInfo) -> PayloadStore | None:
        return self._database if info.location is None else self._files


def verify_and_decode(info: SegmentInfo, payload: bytes) -> Segment:
    """Check a payload's checksum and decode it. CPU-bound.

    Raises:
        DamagedSegmentError: the checksum or the format is wrong.
    """
    if hashlib.sha256(payload).digest() != info.checksum:
        raise DamagedSegmentError("its checksum is wrong")
    return segment.decode(payload)
