"""The tables of VECTOR_STORE=pgvector: derived, and no models, since only who uses them has the extension."""

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from shared.settings import SettingsError

_TABLES = """
CREATE TABLE IF NOT EXISTS pgvector_state (
    user_id bigint PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    seq bigint NOT NULL DEFAULT 0,       -- the log's number up to which the table has everything
    version bigint NOT NULL DEFAULT 0,   -- users.index_version, when the user's rows were last made anew
    embedder text,                       -- whose vectors the rows are; NULL while they are being deleted
    indexed integer NOT NULL DEFAULT 0   -- the dimension for which there is an HNSW index of the user's rows
);
CREATE TABLE IF NOT EXISTS pgvector_vectors (
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    prompt_id bigint NOT NULL,
    embedding vector NOT NULL,
    PRIMARY KEY (user_id, prompt_id)
) WITH (toast_tuple_target = 8160)       -- vectors of up to 2,000 dimensions stay in their rows
"""
_NEEDED = [0, 8]  # the first version with iterative scans


def create_tables(connection: Connection) -> None:
    """Makes the extension and the tables where they are not there. Part of migrating with VECTOR_STORE=pgvector.

    Raises:
        SettingsError: the server does not have the extension, or the database's user may not create it.
    """
    available = "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
    created = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    check_version(connection.scalar(text(created)) or connection.scalar(text(available)))
    try:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
    except ProgrammingError as error:  # mostly only a superuser may
        raise SettingsError(
            "VECTOR_STORE=pgvector: the database's user may not create the extension; have a superuser run "
            "CREATE EXTENSION vector in this database, or set VECTOR_STORE=faiss."
        ) from error
    connection.execute(text(_TABLES))


def check_version(version: str | None) -> None:
    """Raises SettingsError if this version of the extension is too old, or there is none."""
    if version is None or [int(part) for part in version.split(".")] < _NEEDED:
        raise SettingsError(
            f"VECTOR_STORE=pgvector needs pgvector 0.8 or newer, and the database's server has {version or 'none'}: "
            "install it there, or set VECTOR_STORE=faiss."
        )


def is_ours(table: str | None) -> bool:
    """Whether this table is not one of the models, but of this store."""
    return (table or "").startswith("pgvector_")
