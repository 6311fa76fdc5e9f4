"""Where sealed segments are kept: their list in Postgres, their payloads there too, or under a URL."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

import faiss
import fsspec
import structlog
from sqlalchemy import Connection, delete, insert, select, update

from shared.db.engine import BINARY_RESULTS
from shared.db.models import SegmentEntry, SegmentPart
from shared.search.faiss import segment
from shared.search.faiss.segment import DamagedSegmentError, Segment

log = structlog.get_logger(__name__)

#: Payloads are stored and read in pieces of so many bytes, so that no statement takes long.
PART = 4 * 1024 * 1024


class SegmentUnavailableError(Exception):
    """A segment's payload cannot be read now."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is known of a segment without reading it: it has the log's vectors from `first_seq` to `last_seq`."""

    id: int
    first_seq: int
    last_seq: int
    count: int
    checksum: bytes
    location: str | None
    damaged: bool


_COLUMNS = [getattr(SegmentEntry, name) for name in Sealed.__slots__]


class SegmentPayloads(Protocol):
    """Keeps what segments consist of."""

    def put(self, connection: Connection, segment_id: int, payload: bytes) -> str | None:
        """Stores it, and returns where, if not in the database."""

    def get(self, connection: Connection, sealed: Sealed) -> bytes:
        """What was stored. Raises OSError if that cannot be read."""

    def remove(self, sealed: Sealed) -> None:
        """Removes what the deletion of its row left behind. Raises OSError if that cannot be done."""


class TablePayloads:
    """Payloads in the table `segment_parts`."""

    def put(self, connection: Connection, segment_id: int, payload: bytes) -> None:
        for number, start in enumerate(range(0, len(payload), PART)):
            part = {"segment_id": segment_id, "number": number, "data": payload[start : start + PART]}
            connection.execute(insert(SegmentPart).values(part))

    def get(self, connection: Connection, sealed: Sealed) -> bytes:
        query = "SELECT data FROM segment_parts WHERE segment_id = %(id)s ORDER BY number"
        connection.exec_driver_sql(f"DECLARE parts NO SCROLL BINARY CURSOR FOR {query}", {"id": sealed.id})
        parts: list[bytes] = []
        while row := connection.exec_driver_sql("FETCH parts", execution_options={BINARY_RESULTS: True}).first():
            parts.append(row[0])
        connection.exec_driver_sql("CLOSE parts")
        return b"".join(parts)

    def remove(self, sealed: Sealed) -> None:
        """Nothing: its parts went with its row."""


class FilePayloads:
    """Payloads in a folder or a bucket, by any URL that fsspec knows (`file:///srv/segments`, `s3://bucket/segments`)."""

    def __init__(self, url: str) -> None:
        self._files, path = fsspec.url_to_fs(url)
        self._path = path.rstrip("/")

    def put(self, connection: Connection, segment_id: int, payload: bytes) -> str:
        location = f"{self._path}/{segment_id}-{uuid4().hex}.segment"
        self._files.makedirs(self._path, exist_ok=True)
        self._files.pipe_file(location, payload)
        return location

    def get(self, connection: Connection, sealed: Sealed) -> bytes:
        payload: bytes = self._files.cat_file(sealed.location)
        return payload

    def remove(self, sealed: Sealed) -> None:
        self._files.rm_file(sealed.location)


class Segments:
    """The sealed segments of all users."""

    def __init__(self, url: str) -> None:
        """With a URL, payloads are stored there from now on; those in the database are still read."""
        self._table = TablePayloads()
        self._files = FilePayloads(url) if url else None

    def of_user(self, connection: Connection, user_id: int, embedder: str | None) -> list[Sealed]:
        """Those of one embedder, or of all, in order of what they cover, the damaged ones too."""
        query = select(*_COLUMNS).where(SegmentEntry.user_id == user_id).order_by(SegmentEntry.first_seq)
        if embedder is not None:
            query = query.where(SegmentEntry.embedder == embedder)
        return [Sealed(*row) for row in connection.execute(query)]

    def add(
        self,
        connection: Connection,
        user_id: int,
        embedder: str,
        covers: tuple[int, int],
        count: int,
        payload: bytes,
    ) -> None:
        """Stores a segment of the `count` vectors with numbers from the first to the last of `covers`."""
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
        location = (self._files or self._table).put(connection, segment_id, payload)
        if location is not None:
            connection.execute(update(SegmentEntry).where(SegmentEntry.id == segment_id).values(location=location))

    def payload(self, connection: Connection, sealed: Sealed) -> bytes:
        """What a segment consists of; to be compared with its checksum (see `read`).

        Raises:
            DamagedSegmentError: it is gone.
            SegmentAwayError: it cannot be read now.
        """
        keeper = self._keeper(sealed)
        if keeper is None:
            raise SegmentUnavailableError(f"it is at {sealed.location}, and SEGMENTS_URL is not set")
        try:
            return keeper.get(connection, sealed)
        except FileNotFoundError as error:
            raise DamagedSegmentError("it is gone") from error
        except OSError as error:
            raise SegmentUnavailableError(f"it cannot be read: {error}") from error

    def mark_damaged(self, connection: Connection, sealed: Sealed) -> None:
        """Has a worker replace it."""
        connection.execute(update(SegmentEntry).where(SegmentEntry.id == sealed.id).values(damaged=True))

    def delete(self, connection: Connection, replaced: Iterable[Sealed]) -> None:
        """Takes them off the list. After the commit, `clean_up` removes what is not in the database."""
        ids = [sealed.id for sealed in replaced]
        connection.execute(delete(SegmentEntry).where(SegmentEntry.id.in_(ids)))

    def clean_up(self, deleted: Iterable[Sealed]) -> None:
        """Removes the payloads of deleted segments, best effort."""
        for sealed in deleted:
            keeper = self._keeper(sealed)
            try:
                if keeper is not None:
                    keeper.remove(sealed)
            except OSError as error:
                log.warning("segment left behind", location=sealed.location, error=str(error))

    def _keeper(self, sealed: Sealed) -> SegmentPayloads | None:
        return self._table if sealed.location is None else self._files


def read(sealed: Sealed, payload: bytes) -> Segment:
    """The segment with this payload. Burns CPU.

    Raises:
        DamagedSegmentError: its checksum is another, or it has another format.
    """
    if hashlib.sha256(payload).digest() != sealed.checksum:
        raise DamagedSegmentError("it has another checksum than when it was stored")
    return segment.read(payload)
