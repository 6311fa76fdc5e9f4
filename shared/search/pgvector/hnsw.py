"""The HNSW indexes of large users, where VECTOR_STORE=pgvector."""

import time
from contextlib import suppress

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import Sessions
from shared.providers import Embedders
from shared.search import vector_log
from shared.search.faiss.sealing import index_lock

logger = structlog.get_logger(__name__)

#: From this many vectors on a user has an HNSW index. Below it gains nothing: comparing 10,000 takes some 10 ms.
HNSW_FROM = 20_000
#: Whose lock is taken for changes of the table itself.
EVERYBODY = 0
#: Vectors with more dimensions cannot be indexed so.
MAX_INDEXED_DIMENSION = 2_000


class HnswBuilder:
    """Builds the HNSW indexes of large users, in a worker.

    Args:
        hnsw_from: From how many vectors on a user has one.
    """

    def __init__(self, sessions: Sessions, embedders: Embedders, *, hnsw_from: int = HNSW_FROM) -> None:
        self._sessions = sessions
        self._embedders = embedders
        self._hnsw_from = hnsw_from

    def seal(self, user_id: int) -> int:
        """Builds the index of a user who is large and has none; drops that of a small one. Returns how many it built.

        (Reindexing empties a user and then calls this, so that new rows are not written into the old index, slowly.)

        It does nothing where another process is at it. Searches and writes go on meanwhile.
        """
        with index_lock(self._sessions, EVERYBODY) as ours, self._sessions() as session:
            if not ours:  # two that are built at once would wait for each other
                return 0
            connection = session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            connection.execute(text("SET statement_timeout = 0"))
            try:
                dimension = self._wanted(connection, user_id)
                return self._change(connection, user_id, dimension)
            finally:
                with suppress(SQLAlchemyError):  # the connection is gone, and what ended it matters more
                    connection.execute(text("RESET statement_timeout"))

    def _wanted(self, connection: Connection, user_id: int) -> int:
        """The dimension of the index that the user should have, or 0 for none."""
        dimension = self._embedders.resolve(vector_log.state(connection, user_id).embedder).dimension
        query = text("SELECT count(*) FROM pgvector_vectors WHERE user_id = :user_id")
        count = connection.execute(query, {"user_id": user_id}).scalar_one()
        return dimension if count >= self._hnsw_from and dimension <= MAX_INDEXED_DIMENSION else 0

    def _change(self, connection: Connection, user_id: int, dimension: int) -> int:
        """Has the user have this index and no other. Returns how many were built."""
        wanted = f"pgvector_hnsw_{user_id}_{dimension}"
        existing = _indexes(connection, user_id)
        for name, valid in existing.items():
            if name != wanted or not valid:  # of another embedder, or from a build that was cut off
                connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {name}")
        build = dimension > 0 and not existing.get(wanted)
        if build:
            begun = time.monotonic()
            connection.exec_driver_sql(
                f"CREATE INDEX CONCURRENTLY {wanted} ON pgvector_vectors "
                f"USING hnsw ((embedding::vector({dimension})) vector_l2_ops) "
                f"WHERE user_id = {user_id} AND vector_dims(embedding) = {dimension}"
            )
            logger.info("HNSW index built", user_id=user_id, seconds=round(time.monotonic() - begun, 1))
        note = "UPDATE pgvector_state SET indexed = :dimension WHERE user_id = :user_id"
        connection.execute(text(note), {"user_id": user_id, "dimension": dimension})
        return int(build)


def _indexes(connection: Connection, user_id: int) -> dict[str, bool]:
    """The names of the user's HNSW indexes, and whether each is complete."""
    query = text(
        "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = 'pgvector_vectors'::regclass AND starts_with(c.relname, :prefix)"
    )
    return {row[0]: row[1] for row in connection.execute(query, {"prefix": f"pgvector_hnsw_{user_id}_"})}
