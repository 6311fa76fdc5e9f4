"""Reading the vector log. Writing it is part of a prompt's completion and deletion (`shared/prompts/completion.py`,
`shared/prompts/submission.py`).

Rows are read in PostgreSQL's binary format, through a binary cursor: a vector in its text format takes twice the bytes
and several times the time. (COPY would be as fast, but psycopg2 refuses it where a wait callback is set.)
"""

from collections.abc import Iterator
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

#: How many rows come at once: some 750 KB, which a CPU's cache still holds.
BATCH = 500
#: How far the squared length of a stored vector may be from 1.
TOLERANCE = 0.01

Seqs = npt.NDArray[np.int64]
_Row = tuple[bytes, bytes, bytes | None]
_NEGATIVE = b"\x80"  # from here on big-endian bytes are those of a negative number
_NONE: Seqs = np.empty(0, np.int64)


class LogRow(NamedTuple):
    """A change: a vector of `dimension` little-endian float32, or a tombstone where it is None."""

    seq: int
    prompt_id: int
    vector: bytes | None


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows of a log, in order of their numbers."""

    reached: int  #: the last number among them; 0 if there are none
    seqs: Seqs  #: of the vectors, shape (n,)
    prompt_ids: Seqs  #: of the vectors, shape (n,)
    vectors: Vectors  #: shape (n, dimension)
    removed: Seqs  #: the prompts whose vectors are gone, in order
    damaged: Seqs  #: the prompts whose vectors are none of the embedder's

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.seqs) + len(self.removed) + len(self.damaged)

    @classmethod
    def of(cls, rows: list[_Row], dimension: int) -> "Changes":
        """Reads rows as they come: numbers as big-endian int64. A damaged vector is reported and left out."""
        if not rows:
            return cls(0, _NONE, _NONE, np.empty((0, dimension), np.float32), _NONE, _NONE)
        seqs, prompt_ids, stored = zip(*rows, strict=True)
        numbers, ids = _integers(seqs), _integers(prompt_ids)
        kept: npt.NDArray[np.bool_] | slice = slice(None)
        removed = _NONE
        if set(map(type, stored)) != {bytes} or set(map(len, stored)) != {4 * dimension}:
            live = np.array([vector is not None for vector in stored])
            whole = [vector is not None and len(vector) == 4 * dimension for vector in stored]
            stored, kept, removed = tuple(compress(stored, whole)), np.array(whole), ids[~live]
        vectors = np.frombuffer(b"".join(stored), "<f4").reshape(-1, dimension)
        sound = _are_unit(vectors)
        ids_kept, damaged = ids[kept][sound], _NONE
        if len(ids_kept) + len(removed) < len(rows):
            damaged = np.setdiff1d(ids, np.concatenate([ids_kept, removed]))
            log.error("damaged vectors left out; reindex makes them anew", prompt_ids=damaged.tolist())
        return cls(int(numbers[-1]), numbers[kept][sound], ids_kept, vectors[sound], removed, damaged)

    @classmethod
    def of_row(cls, row: LogRow, dimension: int) -> "Changes":
        """A single change."""
        number = row.seq.to_bytes(8, signed=True), row.prompt_id.to_bytes(8, signed=True)
        return cls.of([(*number, row.vector)], dimension)

    def after(self, seq: int) -> "Changes":
        """Those after a number. (Tombstones stay: applying one twice changes nothing.)"""
        if not len(self.seqs) or self.seqs[0] > seq:
            return self
        new = self.seqs > seq
        return replace(self, seqs=self.seqs[new], prompt_ids=self.prompt_ids[new], vectors=self.vectors[new])


class State(NamedTuple):
    """What an index of a user's vectors follows."""

    seq: int  #: their newest number
    version: int  #: of what is in place: segments, and vectors that were made anew
    embedder: str | None  #: the name of the one whose vectors are compared, if there are any yet


_STATE = "SELECT seq, index_version, embedder FROM users WHERE id = %(user_id)s"

# The state comes as a row like the others, with a negative number. The originals are on as many pages, which PostgreSQL
# fetches ahead in a bitmap scan only: where they are not in memory, 14 took 1.1 ms that way, and 2.5 ms one by one.
_LOOK = """
SET LOCAL enable_indexscan = off;
DECLARE look NO SCROLL BINARY CURSOR FOR
(SELECT -1 - index_version, seq, convert_to(embedder, 'UTF8') FROM users WHERE id = %(user_id)s)
UNION ALL
(SELECT seq, prompt_id, vector FROM vector_log
 WHERE user_id = %(user_id)s AND seq = ANY(%(wanted)s) AND embedder = %(embedder)s)
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

#: The last number there can be.
END = 2**63 - 1


def state(connection: Connection, user_id: int) -> State:
    """The user's state; of one that does not exist, that of one without vectors."""
    row = connection.exec_driver_sql(_STATE, {"user_id": user_id}).first()
    return State(*row) if row is not None else State(0, 0, None)


def look(connection: Connection, user_id: int, embedder: Embedder, wanted: list[int]) -> tuple[State, Changes]:
    """The user's state, and those vectors with the numbers `wanted` that still exist. All of it is of one moment.

    The connection must be in autocommit.
    """
    if not wanted:
        return state(connection, user_id), Changes.of([], embedder.dimension)
    parameters = {"user_id": user_id, "embedder": embedder.name, "wanted": wanted}
    rows = _fetch(connection, f"{_LOOK}; FETCH ALL FROM look", parameters)
    heads = [row for row in rows if row[0] >= _NEGATIVE]
    originals = Changes.of([row for row in rows if row[0] < _NEGATIVE], embedder.dimension)
    if not heads:
        return State(0, 0, None), originals
    (version, seq), name = _integers(heads[0][:2]).tolist(), heads[0][2]
    return State(seq, -1 - version, None if name is None else name.decode()), originals


def after(connection: Connection, user_id: int, embedder: Embedder, seq: int) -> Changes:
    """The first at most BATCH rows after a number: vectors and tombstones. Once in a transaction, or in autocommit."""
    parameters = {"user_id": user_id, "embedder": embedder.name, "seq": seq, "limit": BATCH}
    return Changes.of(_fetch(connection, f"{_AFTER}; FETCH ALL FROM after", parameters), embedder.dimension)


def stream(
    connection: Connection,
    user_id: int,
    embedder: Embedder,
    *,
    first: int = 0,
    last: int = END,
    one_in: int = 1,
) -> Iterator[Changes]:
    """The vectors with numbers from `first` to `last`, in order, in batches; of every `one_in` about one.

    There are no tombstones: whoever reads all of a log does not need them. The connection must be in a transaction.
    """
    parameters = {"user_id": user_id, "embedder": embedder.name, "first": first, "last": last, "one_in": one_in}
    connection.exec_driver_sql(_STREAM, parameters)
    rows = _fetch(connection, f"FETCH {BATCH} FROM stream")
    while rows:
        yield Changes.of(rows, embedder.dimension)
        rows = _fetch(connection, f"FETCH {BATCH} FROM stream") if len(rows) == BATCH else []
    connection.exec_driver_sql("CLOSE stream")


def _fetch(connection: Connection, sql: str, parameters: dict[str, Any] | None = None) -> list[_Row]:
    result = connection.exec_driver_sql(sql, parameters or {}, execution_options={BINARY_RESULTS: True})
    return result.cursor.fetchall()  # type: ignore[return-value]


def _integers(values: Any) -> Seqs:
    return np.frombuffer(b"".join(values), dtype=">i8").astype(np.int64)


def _are_unit(vectors: Vectors) -> npt.NDArray[np.bool_] | slice:
    """Which of them have length 1, as an index. One that is not finite has no length."""
    with np.errstate(invalid="ignore", over="ignore"):
        close: npt.NDArray[np.bool_] = np.abs(np.einsum("ij,ij->i", vectors, vectors) - 1) < TOLERANCE
    return slice(None) if close.all() else close
