"""Reads the vector log. A prompt's completion and deletion write it (`shared/prompts/completion.py`,
`shared/prompts/submission.py`).

Rows are read in PostgreSQL's binary format, through a binary cursor: in text format a vector takes twice the bytes and
several times the time. (COPY would be as fast, but psycopg2 refuses it where a wait callback is set.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import structlog
from sqlalchemy import Connection

from shared.db.engine import BINARY_RESULTS
from shared.providers import Embedder, Vectors

log = structlog.get_logger(__name__)

#: Rows per fetch: about 750 KB, which fits into a CPU's cache.
BATCH_ROWS = 500
#: How far the squared length of a stored vector may be from 1.
LENGTH_TOLERANCE = 0.01
#: The largest possible number.
MAX_SEQ = 2**63 - 1

Seqs = npt.NDArray[np.int64]
_Row = tuple[bytes, bytes, bytes | None]
_NEGATIVE = b"\x80"  # the smallest first byte of a negative big-endian number
_NO_SEQS: Seqs = np.empty(0, np.int64)


class LogRow(NamedTuple):
    """A change: a vector as little-endian float32, shape (dimension,), or a tombstone if `vector` is None."""

    seq: int
    prompt_id: int
    vector: bytes | None


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows of a log, in order of their numbers."""

    last_seq: int  #: the last number among the rows; 0 if there are none
    seqs: Seqs  #: the vectors' numbers, shape (n,)
    prompt_ids: Seqs  #: the vectors' prompts, shape (n,)
    vectors: Vectors  #: shape (n, dimension)
    removed: Seqs  #: the prompts whose vectors were deleted, in order
    damaged: Seqs  #: the prompts whose vectors are not valid ones of the embedder

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.seqs) + len(self.removed) + len(self.damaged)

    @classmethod
    def from_rows(cls, rows: list[_Row], dimension: int) -> "Changes":
        """Parse rows in binary format: numbers are big-endian int64. Damaged vectors are logged and left out."""
        if not rows:
            return cls(0, _NO_SEQS, _NO_SEQS, np.empty((0, dimension), np.float32), _NO_SEQS, _NO_SEQS)
        seqs, prompt_ids, stored = zip(*rows, strict=True)
        numbers, ids = _integers(seqs), _integers(prompt_ids)
        kept: npt.NDArray[np.bool_] | slice = slice(None)
        removed = _NO_SEQS
        if set(map(type, stored)) != {bytes} or set(map(len, stored)) != {4 * dimension}:
            live = np.array([vector is not None for vector in stored])
            complete = [vector is not None and len(vector) == 4 * dimension for vector in stored]
            stored, kept, removed = tuple(compress(stored, complete)), np.array(complete), ids[~live]
        vectors = np.frombuffer(b"".join(stored), "<f4").reshape(-1, dimension)
        valid = _are_unit(vectors)
        ids_kept, damaged = ids[kept][valid], _NO_SEQS
        if len(ids_kept) + len(removed) < len(rows):
            damaged = np.setdiff1d(ids, np.concatenate([ids_kept, removed]))
            log.error("damaged vectors ignored until they are reindexed", prompt_ids=damaged.tolist())
        return cls(int(numbers[-1]), numbers[kept][valid], ids_kept, vectors[valid], removed, damaged)

    @classmethod
    def from_row(cls, row: LogRow, dimension: int) -> "Changes":
        """Wrap a single change."""
        number = row.seq.to_bytes(8, signed=True), row.prompt_id.to_bytes(8, signed=True)
        return cls.from_rows([(*number, row.vector)], dimension)

    def after(self, seq: int) -> "Changes":
        """Select the vectors after a number. (Tombstones stay: applying one twice changes nothing.)"""
        if not len(self.seqs) or self.seqs[0] > seq:
            return self
        new = self.seqs > seq
        return replace(self, seqs=self.seqs[new], prompt_ids=self.prompt_ids[new], vectors=self.vectors[new])


class State(NamedTuple):
    """The state of a user's log that an index must follow."""

    seq: int  #: the newest number
    version: int  #: `users.index_version`: changes when segments or vectors are replaced
    embedder: str | None  #: the name of the one whose vectors searches compare; None before the first vector
    vectors_missing: bool = False  #: whether some completed prompts may have no vector yet


class Snapshot(NamedTuple):
    """A user's state and some of their vectors, as of the same moment."""

    state: State
    originals: Changes


_STATE = "SELECT seq, index_version, embedder, vectors_missing FROM users WHERE id = %(user_id)s"
_DELETED = """
SELECT known.id FROM unnest(%(user_ids)s::bigint[]) AS known(id)
WHERE NOT EXISTS (SELECT FROM users WHERE users.id = known.id AND deleted_at IS NULL)
"""

# The state is returned as a row like the others, with a negative number that contains `vectors_missing`, too. Each
# original is on a page of its own, and PostgreSQL prefetches pages only in a bitmap scan: when they were not in memory,
# 14 took 1.1 ms that way, and 2.5 ms with an index scan.
_SNAPSHOT = """
SET LOCAL enable_indexscan = off;
DECLARE snapshot NO SCROLL BINARY CURSOR FOR
(SELECT -1 - 2 * index_version - vectors_missing::int, seq, convert_to(embedder, 'UTF8')
 FROM users WHERE id = %(user_id)s)
UNION ALL
(SELECT seq, prompt_id, vector FROM vector_log
 WHERE user_id = %(user_id)s AND seq = ANY(%(wanted)s) AND embedder = %(embedder)s)
"""

_OF_PROMPTS = """
DECLARE vectors NO SCROLL BINARY CURSOR FOR
SELECT seq, prompt_id, vector FROM vector_log
WHERE user_id = %(user_id)s AND prompt_id = ANY(%(prompt_ids)s) AND embedder = %(embedder)s
"""

_AFTER = """
DECLARE after NO SCROLL BINARY CURSOR FOR
SELECT seq, prompt_id, vector FROM vector_log
WHERE user_id = %(user_id)s AND seq > %(seq)s AND (vector IS NULL OR embedder = %(embedder)s) ORDER BY seq
LIMIT %(limit)s
"""

_STREAM = """
DECLARE stream NO SCROLL BINARY CURSOR FOR
SELECT seq, prompt_id, vector FROM vector_log
WHERE user_id = %(user_id)s AND seq BETWEEN %(first)s AND %(last)s AND embedder = %(embedder)s
  AND (%(one_in)s = 1 OR hashint8(seq) %% %(one_in)s = 0)
ORDER BY seq
"""


def fetch_state(connection: Connection, user_id: int) -> State:
    """Return the user's state. A user who does not exist has the state of one without vectors."""
    row = connection.exec_driver_sql(_STATE, {"user_id": user_id}).first()
    return State(*row) if row is not None else State(0, 0, None)


def find_deleted(connection: Connection, user_ids: Sequence[int]) -> list[int]:
    """Those of these users whose accounts are deleted."""
    return [row[0] for row in connection.exec_driver_sql(_DELETED, {"user_ids": list(user_ids)})]


def fetch_snapshot(connection: Connection, user_id: int, embedder: Embedder, wanted: list[int]) -> Snapshot:
    """Return the user's state and the vectors with the numbers `wanted` that still exist, as of one moment.

    The connection must be in autocommit.
    """
    if not wanted:
        return Snapshot(fetch_state(connection, user_id), Changes.from_rows([], embedder.dimension))
    parameters = {"user_id": user_id, "embedder": embedder.name, "wanted": wanted}
    rows = _fetch(connection, f"{_SNAPSHOT}; FETCH ALL FROM snapshot", parameters)
    heads = [row for row in rows if row[0] >= _NEGATIVE]
    originals = Changes.from_rows([row for row in rows if row[0] < _NEGATIVE], embedder.dimension)
    if not heads:
        return Snapshot(State(0, 0, None), originals)
    (encoded, seq), name = _integers(heads[0][:2]).tolist(), heads[0][2]
    version, vectors_missing = divmod(-1 - encoded, 2)
    embedder_name = None if name is None else name.decode()
    return Snapshot(State(seq, version, embedder_name, bool(vectors_missing)), originals)


def fetch_vectors(connection: Connection, user_id: int, embedder: Embedder, prompt_ids: list[int]) -> Changes:
    """Return the vectors of these prompts. The connection must be in autocommit."""
    parameters = {"user_id": user_id, "embedder": embedder.name, "prompt_ids": prompt_ids}
    return Changes.from_rows(
        _fetch(connection, f"{_OF_PROMPTS}; FETCH ALL FROM vectors", parameters), embedder.dimension
    )


def fetch_after(connection: Connection, user_id: int, embedder: Embedder, seq: int) -> Changes:
    """Return the first BATCH_ROWS rows after a number: vectors and tombstones.

    Call it once per transaction, or in autocommit, because the cursor's name is fixed.
    """
    parameters = {"user_id": user_id, "embedder": embedder.name, "seq": seq, "limit": BATCH_ROWS}
    return Changes.from_rows(_fetch(connection, f"{_AFTER}; FETCH ALL FROM after", parameters), embedder.dimension)


def stream(
    connection: Connection,
    user_id: int,
    embedder: Embedder,
    *,
    first: int = 0,
    last: int = MAX_SEQ,
    one_in: int = 1,
) -> Iterator[Changes]:
    """Yield the vectors with numbers from `first` to `last`, in order, in batches; a sample of about 1 in `one_in`.

    Tombstones are left out: a reader of the whole log does not need them. The connection must be in a transaction.
    """
    parameters = {"user_id": user_id, "embedder": embedder.name, "first": first, "last": last, "one_in": one_in}
    connection.exec_driver_sql(_STREAM, parameters)
    rows = _fetch(connection, f"FETCH {BATCH_ROWS} FROM stream")
    while rows:
        yield Changes.from_rows(rows, embedder.dimension)
        rows = _fetch(connection, f"FETCH {BATCH_ROWS} FROM stream") if len(rows) == BATCH_ROWS else []
    connection.exec_driver_sql("CLOSE stream")


def _fetch(connection: Connection, sql: str, parameters: dict[str, Any] | None = None) -> list[_Row]:
    result = connection.exec_driver_sql(sql, parameters or {}, execution_options={BINARY_RESULTS: True})
    return result.cursor.fetchall()  # type: ignore[return-value]


def _integers(values: Any) -> Seqs:
    return np.frombuffer(b"".join(values), dtype=">i8").astype(np.int64)


def _are_unit(vectors: Vectors) -> npt.NDArray[np.bool_] | slice:
    """Return an index that selects the vectors of length 1. Those with values that are not finite are not selected."""
    with np.errstate(invalid="ignore", over="ignore"):
        close: npt.NDArray[np.bool_] = np.abs(np.einsum("ij,ij->i", vectors, vectors) - 1) < LENGTH_TOLERANCE
    return slice(None) if close.all() else close
