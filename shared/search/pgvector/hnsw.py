"""HNSW indexes of large users, for VECTOR_STORE=pgvector."""

import time

import structlog
from sqlalchemy import Connection, text

from shared.db.engine import Sessions
from shared.db.pooler import unlimited
from shared.providers import Embedders
from shared.search import vector_log
from shared.search.index_lock import index_lock

logger = structlog.get_logger(__name__)

#: From this many vectors a user has an HNSW index. Below, it gains nothing: comparing 10,000 takes about 10 ms.
HNSW_FROM = 20_000
#: The "user" whose lock protects the table itself.
ALL_USERS = 0
#: pgvector cannot index vectors with more dimensions.
MAX_INDEXED_DIMENSION = 2_000


class HnswBuilder:
    """Builds the HNSW indexes of large users, in a worker.

    Args:
        hnsw_from: How many vectors are worth an index.
    """

    def __init__(self, sessions: Sessions, embedders: Embedders, *, hnsw_from: int = HNSW_FROM) -> None:
        self._sessions = sessions
        self._embedders = embedders
        self._hnsw_from = hnsw_from

    def seal(self, user_id: int) -> int:
        """Build the index of a large user who has none, or drop the index of a small one. Returns how many it built.

        Reindexing deletes a user's rows and then calls this, so that new rows are not written into the old index,
        which is slow.

        Does nothing while another process builds an index. Searches and writes continue during the build.
        """
        with index_lock(self._sessions, ALL_USERS) as acquired, self._sessions() as session:
            if not acquired:  # two concurrent builds would wait for each other
                return 0
            with unlimited(session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})) as connection:
                dimension = self._index_dimension(connection, user_id)
                return self._ensure_index(connection, user_id, dimension)

    def _index_dimension(self, connection: Connection, user_id: int) -> int:
        """Return the dimension of the index that the user should have, or 0 for none."""
        dimension = self._embedders.resolve(vector_log.fetch_state(connection, user_id).embedder).dimension
        query = text("SELECT count(*) FROM pgvector_vectors WHERE user_id = :user_id")
        count = connection.execute(query, {"user_id": user_id}).scalar_one()
        return dimension if count >= self._hnsw_from and dimension <= MAX_INDEXED_DIMENSION else 0

    def _ensure_index(self, connection: Connection, user_id: int, dimension: int) -> int:
        """Build this index if it does not exist, and drop all others. Returns how many were built."""
        wanted = f"pgvector_hnsw_{user_id}_{dimension}"
        existing = _indexes(connection, user_id)
        for name, valid in existing.items():
            if name != wanted or not valid:  # of another embedder, or of an interrupted build
                connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {name}")
        build = dimension > 0 and not existing.get(wanted)
        if build:
            started = time.monotonic()
            connection.exec_driver_sql(
                f"CREATE INDEX CONCURRENTLY {wanted} ON pgvector_vectors "
                f"USING hnsw ((embedding::vector({dimension})) vector_l2_ops) "
                f"WHERE user_id = {user_id} AND vector_dims(embedding) = {dimension}"
            )
            logger.info("HNSW index built", user_id=user_id, seconds=round(time.monotonic() - started, 1))
        record = "UPDATE pgvector_state SET indexed = :dimension WHERE user_id = :user_id"
        connection.execute(text(record), {"user_id": user_id, "dimension": dimension})
        return int(build)


def drop_indexes(sessions: Sessions, user_id: int) -> bool:
    """Drop the indexes of a deleted user. Returns False, and does nothing, while another process builds an index."""
    with index_lock(sessions, ALL_USERS) as acquired, sessions() as session:
        if not acquired:
            return False
        with unlimited(session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})) as connection:
            for name in _indexes(connection, user_id):
                connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {name}")
    return True


def _indexes(connection: Connection, user_id: int) -> dict[str, bool]:
    """Return the names of the user's HNSW indexes, and whether each is complete."""
    query = text(
        "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = 'pgvector_vectors'::regclass AND starts_with(c.relname, :prefix)"
    )
    return {row[0]: row[1] for row in connection.execute(query, {"prefix": f"pgvector_hnsw_{user_id}_"})}
