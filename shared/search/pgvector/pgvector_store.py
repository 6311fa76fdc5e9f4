"""The store of vectors in Postgres, with the extension pgvector (VECTOR_STORE=pgvector).

All users' vectors are in one narrow table that any process brings up to date with the log, and a search is one query:
its answer and what the table has taken up of the log are of one moment. A small user's vectors are all compared. From
HNSW_FROM vectors on a worker builds an HNSW index (Malkov and Yashunin, 2016) of that user's rows alone; PostgreSQL
chooses it by itself, since queries name the user.

Recall of 10, and the median in ms, among 200,000 vectors of 384 dimensions (two busy cores; 40 queries; the index over
all users with iterative scan, and ef_search 200; clusters have 100 vectors, of all users):

    own vectors                                  10,000      50,000     100,000
    all compared                             1.00   11   1.00   66   1.00   66
    clustered, user's own index, ef 400      1.00   11   1.00   16   1.00    13
    clustered, user's own index, ef 200      0.99    7   1.00   10   1.00     5
    clustered, one index of all users        0.78   11   1.00    9   1.00     9
    random, user's own index, ef 400         0.96    4   0.53    9   0.31    13
    random, user's own index, ef 200         0.80    3   0.35    5   0.20     6
    random, one index of all users           0.13   49   0.12   12   0.14    13

So it is an index a user. Vectors of texts are clustered; for any that are like random ones, HNSW_FROM is to be raised.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import Sessions
from shared.providers import Embedder, Embedders, Vectors
from shared.search import vector_log
from shared.search.pgvector.hnsw import HNSW_FROM, MAX_INDEXED_DIMENSION
from shared.search.store import Match, Offload, Query
from shared.search.throttle import Throttle
from shared.search.vector_log import LogRow, Seqs, State

logger = structlog.get_logger(__name__)

#: How many nearest are looked for in an HNSW index, of which the best are taken.
EF_SEARCH = 400
#: So many rows are written by one statement; it must not take long even where an HNSW index is to be kept up.
WRITTEN_AT_ONCE = 100
DELETED_AT_ONCE = 1_000
#: How often a search catches up with a log that goes on, before it answers with what it has.
ROUNDS = 8

# The dimension is compared so that rows of another embedder are never cast, and as the predicate of the HNSW index.
_SEARCH = """
SET LOCAL hnsw.iterative_scan = strict_order;
SET LOCAL hnsw.ef_search = {ef_search};
SELECT u.seq, u.index_version, u.embedder, s.seq, s.version, s.embedder, nearest.prompt_id, nearest.distance
FROM users u LEFT JOIN pgvector_state s ON s.user_id = u.id
LEFT JOIN LATERAL (
    SELECT prompt_id, embedding::vector({dimension}) <-> %(vector)s::vector AS distance FROM pgvector_vectors
    WHERE user_id = %(user_id)s AND vector_dims(embedding) = {dimension}
    ORDER BY embedding::vector({dimension}) <-> %(vector)s::vector LIMIT %(k)s
) nearest ON true
WHERE u.id = %(user_id)s ORDER BY nearest.distance
"""
_BEGIN = "INSERT INTO pgvector_state (user_id) SELECT id FROM users WHERE id = %(user_id)s ON CONFLICT DO NOTHING"
_LOCK = "SELECT seq, version, embedder, indexed FROM pgvector_state WHERE user_id = %(user_id)s FOR UPDATE"
_NOTE = """
UPDATE pgvector_state SET seq = %(seq)s, version = %(version)s, embedder = %(embedder)s WHERE user_id = %(user_id)s
"""
_WRITE = """
INSERT INTO pgvector_vectors SELECT %(user_id)s, * FROM unnest(%(ids)s::bigint[], %(vectors)s::vector[])
ON CONFLICT (user_id, prompt_id) DO UPDATE SET embedding = EXCLUDED.embedding
"""
_REMOVE = "DELETE FROM pgvector_vectors WHERE user_id = %(user_id)s AND prompt_id = ANY(%(ids)s::bigint[])"
_EMPTY = """
DELETE FROM pgvector_vectors WHERE user_id = %(user_id)s AND prompt_id IN
(SELECT prompt_id FROM pgvector_vectors WHERE user_id = %(user_id)s LIMIT %(most)s)
"""


class _Held(NamedTuple):
    """What the table has of a user (see `pgvector_state`)."""

    seq: int
    version: int
    embedder: str | None
    indexed: int = 0

    def fits(self, state: State, embedder: Embedder) -> bool:
        """Whether the rows are those to search, but for what the log has since added."""
        return (self.version, self.embedder) == (state.version, embedder.name)


_NOTHING = _Held(-1, 0, None)


class _Look(NamedTuple):
    """What one query tells: the user's state, what the table has of them, and the nearest of that."""

    state: State
    held: _Held
    nearest: list[Match]


class PgvectorStore:
    """Searches a user's own vectors, in Postgres.

    Args:
        autocommit_engine: An engine in autocommit, for what one statement tells.
        hnsw_from: How many vectors a user may have before `ask_to_index` is called (see `Throttle`).
    """

    def __init__(
        self,
        sessions: Sessions,
        autocommit_engine: Engine,
        embedders: Embedders,
        *,
        ask_to_index: Callable[[int], object],
        offload: Offload,
        hnsw_from: int = HNSW_FROM,
    ) -> None:
        self._sessions = sessions
        self._autocommit_engine = autocommit_engine
        self._embedders = embedders
        self._ask_to_index = Throttle(ask_to_index)
        self._offload = offload
        self._hnsw_from = hnsw_from

    @property
    def nbytes(self) -> int:
        """Nothing: all is in Postgres."""
        return 0

    def search(self, user_id: int, query: Query, k: int) -> list[Match]:
        """The at most `k` nearest of the user's vectors: of all of them, or, with an HNSW index, nearly always."""
        embedder = self._embedders.current
        vector = query(embedder)
        needed = 0
        for _ in range(ROUNDS):
            look = self._look(user_id, embedder, vector, k)
            wanted = self._embedders.resolve(look.state.embedder)
            needed = needed or look.state.seq  # what is added while this runs may wait for the next search
            if wanted is embedder and look.held.fits(look.state, embedder) and look.held.seq >= needed:
                break
            if wanted is not embedder:
                embedder, vector = wanted, query(wanted)
            self._catch_up(user_id)
        return look.nearest

    def apply(self, user_id: int, rows: Sequence[LogRow]) -> None:
        """Takes up what the log has, of which these are the newest."""
        try:
            self._catch_up(user_id)
        except SQLAlchemyError as error:
            logger.warning("vectors not taken up; a search will", user_id=user_id, error=type(error).__name__)

    def forget(self, user_id: int) -> None:
        """Deletes the user's rows."""
        while not self._empty(user_id):
            pass

    def _look(self, user_id: int, embedder: Embedder, vector: Vectors, k: int) -> _Look:
        parameters = {"user_id": user_id, "vector": literals(vector.reshape(1, -1))[0], "k": k}
        with self._autocommit_engine.connect() as connection:
            rows = connection.exec_driver_sql(search_sql(embedder.dimension), parameters).all()
        if not rows:
            return _Look(State(0, 0, None), _Held(0, 0, embedder.name), [])
        state, held = State(*rows[0][:3]), _Held(*rows[0][3:6]) if rows[0][3] is not None else _NOTHING
        return _Look(state, held, [Match(row[6], row[7] ** 2) for row in rows if row[6] is not None])

    def _catch_up(self, user_id: int) -> None:
        """Brings the user's rows up to what the log has by now. What was done stays done if this is cut off."""
        while not self._take_batch(user_id):
            pass

    def _take_batch(self, user_id: int) -> bool:
        """Takes up some of what the log has, in a short transaction. Returns whether that was all."""
        with self._sessions.begin() as session:
            connection = session.connection()
            held = _lock(connection, user_id)
            if held is None:  # there is no such user
                return True
            state = vector_log.state(connection, user_id)
            embedder = self._embedders.resolve(state.embedder)
            if not held.fits(state, embedder):
                emptied = _empty(connection, user_id)
                _note(connection, user_id, 0, state.version, embedder.name if emptied else None)
                return False
            if held.seq >= state.seq:
                return True
            changes = vector_log.after(connection, user_id, embedder, held.seq)
            self._write(connection, user_id, changes.prompt_ids, changes.vectors)
            if len(changes.removed):
                connection.exec_driver_sql(_REMOVE, {"user_id": user_id, "ids": changes.removed.tolist()})
            reached = changes.reached if changes.count == vector_log.BATCH else max(state.seq, changes.reached)
            _note(connection, user_id, reached, state.version, embedder.name)
        if reached < state.seq:
            return False
        self._consider_indexing(user_id, reached, held.indexed, embedder)
        return True

    def _write(self, connection: Connection, user_id: int, prompt_ids: Seqs, vectors: Vectors) -> None:
        ids, written = prompt_ids.tolist(), self._offload(literals, vectors)
        for start in range(0, len(ids), WRITTEN_AT_ONCE):
            part = slice(start, start + WRITTEN_AT_ONCE)
            connection.exec_driver_sql(_WRITE, {"user_id": user_id, "ids": ids[part], "vectors": written[part]})

    def _empty(self, user_id: int) -> bool:
        """Deletes some of the user's rows. Returns whether those were all."""
        with self._sessions.begin() as session:
            connection = session.connection()
            if _lock(connection, user_id) is None:
                return True
            _note(connection, user_id, 0, 0, None)
            return _empty(connection, user_id)

    def _consider_indexing(self, user_id: int, seq: int, indexed: int, embedder: Embedder) -> None:
        """Asks for an HNSW index if it may be time; whoever builds it counts."""
        if seq < self._hnsw_from or indexed == embedder.dimension or embedder.dimension > MAX_INDEXED_DIMENSION:
            return
        self._ask_to_index(user_id)


def search_sql(dimension: int) -> str:
    """The statements of a search among vectors of this dimension, with parameters `user_id`, `vector` and `k`."""
    return _SEARCH.format(ef_search=EF_SEARCH, dimension=dimension)


def literals(vectors: Vectors) -> list[str]:
    """Vectors of shape (n, dimension) as pgvector reads them, with all digits that a float32 has."""
    form = "[" + ",".join(["%.9g"] * vectors.shape[1]) + "]"
    return [form % tuple(vector) for vector in vectors.tolist()]


def _lock(connection: Connection, user_id: int) -> _Held | None:
    """What the table has of the user, whose rows nobody else changes until the commit."""
    parameters = {"user_id": user_id}
    row = connection.exec_driver_sql(_LOCK, parameters).first()
    if row is None:
        connection.exec_driver_sql(_BEGIN, parameters)
        row = connection.exec_driver_sql(_LOCK, parameters).first()
    return _Held(*row) if row is not None else None


def _note(connection: Connection, user_id: int, seq: int, version: int, embedder: str | None) -> None:
    parameters = {"user_id": user_id, "seq": seq, "version": version, "embedder": embedder}
    connection.exec_driver_sql(_NOTE, parameters)


def _empty(connection: Connection, user_id: int) -> bool:
    """Deletes some of the user's rows. Returns whether those were all."""
    parameters = {"user_id": user_id, "most": DELETED_AT_ONCE}
    return connection.exec_driver_sql(_EMPTY, parameters).rowcount < DELETED_AT_ONCE
