"""The tables of VECTOR_STORE=pgvector. They are not among the models, because they need the extension."""

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from shared.db.engine import Sessions
from shared.search.pgvector.hnsw import drop_indexes
from shared.settings import SettingsError

_TABLES = """
CREATE TABLE IF NOT EXISTS pgvector_state (
    user_id bigint PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    seq bigint NOT NULL DEFAULT 0,       -- the log's number up to which the table is complete
    version bigint NOT NULL DEFAULT 0,   -- users.index_version when the user's rows were last rebuilt
    embedder text,                       -- the rows' embedder; NULL while they are being deleted
    indexed integer NOT NULL DEFAULT 0   -- the dimension of the HNSW index of the user's rows; 0: none
);
CREATE TABLE IF NOT EXISTS pgvector_vectors (
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    prompt_id bigint NOT NULL,
    embedding vector NOT NULL,
    PRIMARY KEY (user_id, prompt_id)
) WITH (toast_tuple_target = 8160)       -- vectors of up to 2,000 dimensions stay in their rows
"""
_EXIST = "SELECT to_regclass('pgvector_vectors') IS NOT NULL"
_DELETE_ROWS = text("""
DELETE FROM pgvector_vectors
WHERE ctid = ANY(ARRAY(SELECT ctid FROM pgvector_vectors WHERE user_id = :user_id LIMIT :limit))
""")
_DELETE_STATE = text("DELETE FROM pgvector_state WHERE user_id = :user_id")
DELETE_BATCH = 1_000
_MIN_VERSION = [0, 8]  # the first one with iterative scans


def create_tables(connection: Connection) -> None:
    """Create the extension and the tables if they do not exist. Migrating with VECTOR_STORE=pgvector calls it.

    Raises:
        SettingsError: the server does not have the extension, or the database's user may not create it.
    """
    available = "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
    created = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    check_version(connection.scalar(text(created)) or connection.scalar(text(available)))
    try:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
    except ProgrammingError as error:  # usually because only a superuser may
        raise SettingsError(
            "VECTOR_STORE=pgvector: the database's user may not create the extension. Have a superuser run "
            "CREATE EXTENSION vector in this database, or set VECTOR_STORE=faiss."
        ) from error
    connection.execute(text(_TABLES))


def delete_user(sessions: Sessions, user_id: int) -> bool:
    """Delete a user's rows and indexes. Returns False if indexes are left, because another process builds one."""
    with sessions() as session:
        if not session.scalar(text(_EXIST)):
            return True
    rows = 1
    while rows:
        with sessions.begin() as session:
            rows = session.execute(_DELETE_ROWS, {"user_id": user_id, "limit": DELETE_BATCH}).rowcount  # type: ignore[attr-defined]
            session.execute(_DELETE_STATE, {"user_id": user_id})
    return drop_indexes(sessions, user_id)


def check_version(version: str | None) -> None:
    """Raise SettingsError if the extension is not installed or too old."""
    if version is None or [int(part) for part in version.split(".")] < _MIN_VERSION:
        raise SettingsError(
            f"VECTOR_STORE=pgvector needs pgvector 0.8 or newer; the database server has {version or 'none'}. "
            "Install it there, or set VECTOR_STORE=faiss."
        )


def is_ours(table: str | None) -> bool:
    """Whether a table belongs to this store and not to the models."""
    return (table or "").startswith("pgvector_")
