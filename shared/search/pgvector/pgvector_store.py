"""The vector store in Postgres, with the extension pgvector (VECTOR_STORE=pgvector).

All users' vectors are in one narrow table, which any process brings up to date with the log. A search is one query: it
returns the nearest vectors and the table's position in the log, as of the same moment. A small user's vectors are all
compared. From HNSW_FROM vectors a worker builds an HNSW index (Malkov and Yashunin, 2016) of that user's rows alone;
PostgreSQL chooses it, because the query names the user.

Recall of 10 and the median in ms, among 200,000 vectors of 384 dimensions (two busy cores; 40 queries; the index of all
users with iterative scan and ef_search 200; clusters of 100 vectors, across all users):

    own vectors                                  10,000      50,000     100,000
    all compared                             1.00   11   1.00   66   1.00   66
    clustered, user's own index, ef 400      1.00   11   1.00   16   1.00    13
    clustered, user's own index, ef 200      0.99    7   1.00   10   1.00     5
    clustered, one index of all users        0.78   11   1.00    9   1.00     9
    random, user's own index, ef 400         0.96    4   0.53    9   0.31    13
    random, user's own index, ef 200         0.80    3   0.35    5   0.20     6
    random, one index of all users           0.13   49   0.12   12   0.14    13

Hence one index per user. Vectors of texts are clustered; for vectors that are like random ones, raise HNSW_FROM.
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
from shared.search.store import EmbedQuery, Match, Offload, SearchResult
from shared.search.throttle import Throttle
from shared.search.vector_log import LogRow, Seqs, State

logger = structlog.get_logger(__name__)

#: How many nearest vectors a search in an HNSW index finds, of which it returns the best.
EF_SEARCH = 400
#: Rows per statement, which must not take long even if it has to update an HNSW index.
WRITE_BATCH = 100
DELETE_BATCH = 1_000
#: How often a search catches up with a growing log before it answers with what it has.
MAX_CATCH_UPS = 8

# The condition on the dimension keeps rows of another embedder from being cast, and is the HNSW index's predicate.
_SEARCH = """
SET LOCAL hnsw.iterative_scan = strict_order;
SET LOCAL hnsw.ef_search = {ef_search};
SELECT u.seq, u.index_version, u.embedder, u.vectors_missing, s.seq, s.version, s.embedder,
    nearest.prompt_id, nearest.distance
FROM users u LEFT JOIN pgvector_state s ON s.user_id = u.id
LEFT JOIN LATERAL (
    SELECT prompt_id, embedding::vector({dimension}) <-> %(vector)s::vector AS distance FROM pgvector_vectors
    WHERE user_id = %(user_id)s AND vector_dims(embedding) = {dimension}
    ORDER BY embedding::vector({dimension}) <-> %(vector)s::vector LIMIT %(k)s
) nearest ON true
WHERE u.id = %(user_id)s ORDER BY nearest.distance
"""
# All allowed rows are compared. An HNSW index would find the nearest of all rows first, and perhaps none that is
# allowed: the sum keeps PostgreSQL from choosing it.
_SEARCH_AMONG = _SEARCH.replace(
    "ORDER BY embedding::vector({dimension}) <-> %(vector)s::vector",
    """AND prompt_id = ANY(%(allowed)s::bigint[])
    ORDER BY (embedding::vector({dimension}) <-> %(vector)s::vector) + 0""",
)
_CREATE_STATE = (
    "INSERT INTO pgvector_state (user_id) SELECT id FROM users WHERE id = %(user_id)s ON CONFLICT DO NOTHING"
)
_LOCK_STATE = "SELECT seq, version, embedder, indexed FROM pgvector_state WHERE user_id = %(user_id)s FOR UPDATE"
_UPDATE_STATE = """
UPDATE pgvector_state SET seq = %(seq)s, version = %(version)s, embedder = %(embedder)s WHERE user_id = %(user_id)s
"""
_WRITE = """
INSERT INTO pgvector_vectors SELECT %(user_id)s, * FROM unnest(%(ids)s::bigint[], %(vectors)s::vector[])
ON CONFLICT (user_id, prompt_id) DO UPDATE SET embedding = EXCLUDED.embedding
"""
_REMOVE = "DELETE FROM pgvector_vectors WHERE user_id = %(user_id)s AND prompt_id = ANY(%(ids)s::bigint[])"
_DELETE_BATCH = """
DELETE FROM pgvector_vectors WHERE user_id = %(user_id)s AND prompt_id IN
(SELECT prompt_id FROM pgvector_vectors WHERE user_id = %(user_id)s LIMIT %(limit)s)
"""


class _TableState(NamedTuple):
    """What the table has of a user (see `pgvector_state`)."""

    seq: int
    version: int
    embedder: str | None
    indexed: int = 0

    def is_current(self, state: State, embedder: Embedder) -> bool:
        """Whether the rows only have to catch up with the log, and need not be replaced."""
        return (self.version, self.embedder) == (state.version, embedder.name)


_NO_ROWS = _TableState(-1, 0, None)


class _Snapshot(NamedTuple):
    """The result of one query: the user's state in the log and in the table, and the nearest rows of the table."""

    state: State
    table: _TableState
    nearest: list[Match]


class PgvectorStore:
    """Searches a user's own vectors, in Postgres.

    Args:
        autocommit_engine: An engine in autocommit, for queries of one statement.
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
        """Zero: everything is in Postgres."""
        return 0

    def search(
        self, user_id: int, embed_query: EmbedQuery, k: int, *, allowed: Sequence[int] | None = None
    ) -> SearchResult:
        """Find the at most `k` nearest of the user's vectors: exactly, or, with an HNSW index, nearly always.

        Those of allowed prompts are compared exactly.
        """
        embedder = self._embedders.current
        vector = embed_query(embedder)
        min_seq, vectors_missing = 0, False
        for _ in range(MAX_CATCH_UPS):
            snapshot = self._fetch_snapshot(user_id, embedder, vector, k, allowed)
            vectors_missing = vectors_missing or snapshot.state.vectors_missing
            result = SearchResult(snapshot.nearest, embedder, vector, vectors_missing)
            expected = self._embedders.resolve(snapshot.state.embedder)
            min_seq = min_seq or snapshot.state.seq  # what is added during this search may wait for the next one
            is_current = expected is embedder and snapshot.table.is_current(snapshot.state, embedder)
            if is_current and snapshot.table.seq >= min_seq:
                break
            if expected is not embedder:
                embedder, vector = expected, embed_query(expected)
            self._catch_up(user_id)
        return result

    def apply(self, user_id: int, rows: Sequence[LogRow]) -> None:
        """Bring the table up to date with the log, of which these are the newest rows."""
        try:
            self._catch_up(user_id)
        except SQLAlchemyError as error:
            logger.warning("vectors not applied, left to the next search", user_id=user_id, error=type(error).__name__)

    def forget(self, user_id: int) -> None:
        """Delete the user's rows."""
        while not self._delete_some(user_id):
            pass

    def drop_deleted(self) -> None:
        """Do nothing: everything is in Postgres."""

    def _fetch_snapshot(
        self, user_id: int, embedder: Embedder, vector: Vectors, k: int, allowed: Sequence[int] | None
    ) -> _Snapshot:
        parameters: dict[str, object] = {"user_id": user_id, "vector": literals(vector.reshape(1, -1))[0], "k": k}
        sql = search_sql(embedder.dimension)
        if allowed is not None:
            sql = _SEARCH_AMONG.format(ef_search=EF_SEARCH, dimension=embedder.dimension)
            parameters["allowed"] = list(allowed)
        with self._autocommit_engine.connect() as connection:
            rows = connection.exec_driver_sql(sql, parameters).all()
        if not rows:
            return _Snapshot(State(0, 0, None), _TableState(0, 0, embedder.name), [])
        state, table = State(*rows[0][:4]), _TableState(*rows[0][4:7]) if rows[0][4] is not None else _NO_ROWS
        return _Snapshot(state, table, [Match(row[7], row[8] ** 2) for row in rows if row[7] is not None])

    def _catch_up(self, user_id: int) -> None:
        """Bring the user's rows up to date with the log. An interruption loses only the current batch."""
        while not self._apply_batch(user_id):
            pass

    def _apply_batch(self, user_id: int) -> bool:
        """Apply some rows of the log, in a short transaction. Returns whether those were all."""
        with self._sessions.begin() as session:
            connection = session.connection()
            table = _lock_state(connection, user_id)
            if table is None:  # the user does not exist
                return True
            state = vector_log.fetch_state(connection, user_id)
            embedder = self._embedders.resolve(state.embedder)
            if not table.is_current(state, embedder):
                is_empty = _delete_batch(connection, user_id)
                _update_state(connection, user_id, 0, state.version, embedder.name if is_empty else None)
                return False
            if table.seq >= state.seq:
                return True
            changes = vector_log.fetch_after(connection, user_id, embedder, table.seq)
            self._write(connection, user_id, changes.prompt_ids, changes.vectors)
            if len(changes.removed):
                connection.exec_driver_sql(_REMOVE, {"user_id": user_id, "ids": changes.removed.tolist()})
            is_full = changes.count == vector_log.BATCH_ROWS
            seq = changes.last_seq if is_full else max(state.seq, changes.last_seq)
            _update_state(connection, user_id, seq, state.version, embedder.name)
        if seq < state.seq:
            return False
        self._consider_indexing(user_id, seq, table.indexed, embedder)
        return True

    def _write(self, connection: Connection, user_id: int, prompt_ids: Seqs, vectors: Vectors) -> None:
        ids, texts = prompt_ids.tolist(), self._offload(literals, vectors)
        for start in range(0, len(ids), WRITE_BATCH):
            part = slice(start, start + WRITE_BATCH)
            connection.exec_driver_sql(_WRITE, {"user_id": user_id, "ids": ids[part], "vectors": texts[part]})

    def _delete_some(self, user_id: int) -> bool:
        """Delete some of the user's rows, in a short transaction. Returns whether those were all."""
        with self._sessions.begin() as session:
            connection = session.connection()
            if _lock_state(connection, user_id) is None:
                return True
            _update_state(connection, user_id, 0, 0, None)
            return _delete_batch(connection, user_id)

    def _consider_indexing(self, user_id: int, seq: int, indexed: int, embedder: Embedder) -> None:
        """Ask for an HNSW index if the user may be large enough; the builder counts the rows."""
        if seq < self._hnsw_from or indexed == embedder.dimension or embedder.dimension > MAX_INDEXED_DIMENSION:
            return
        self._ask_to_index(user_id)


def search_sql(dimension: int) -> str:
    """Return the statements that search vectors of this dimension, with parameters `user_id`, `vector` and `k`."""
    return _SEARCH.format(ef_search=EF_SEARCH, dimension=dimension)


def literals(vectors: Vectors) -> list[str]:
    """Format vectors of shape (n, dimension) for pgvector, with all digits of a float32."""
    form = "[" + ",".join(["%.9g"] * vectors.shape[1]) + "]"
    return [form % tuple(vector) for vector in vectors.tolist()]


def _lock_state(connection: Connection, user_id: int) -> _TableState | None:
    """Return the table's state for a user, and lock the user's rows until the commit. None: no such user."""
    parameters = {"user_id": user_id}
    row = connection.exec_driver_sql(_LOCK_STATE, parameters).first()
    if row is None:
        connection.exec_driver_sql(_CREATE_STATE, parameters)
        row = connection.exec_driver_sql(_LOCK_STATE, parameters).first()
    return _TableState(*row) if row is not None else None


def _update_state(connection: Connection, user_id: int, seq: int, version: int, embedder: str | None) -> None:
    parameters = {"user_id": user_id, "seq": seq, "version": version, "embedder": embedder}
    connection.exec_driver_sql(_UPDATE_STATE, parameters)


def _delete_batch(connection: Connection, user_id: int) -> bool:
    """Delete some of the user's rows. Returns whether those were all."""
    parameters = {"user_id": user_id, "limit": DELETE_BATCH}
    return connection.exec_driver_sql(_DELETE_BATCH, parameters).rowcount < DELETE_BATCH
