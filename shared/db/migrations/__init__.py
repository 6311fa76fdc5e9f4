"""Alembic's migrations, and how to apply them."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

_SCRIPTS = str(Path(__file__).parent)


def upgrade(engine: Engine, *, vector_store: str = "faiss") -> None:
    """Migrate the database to the newest schema, including the store's tables. Concurrent callers wait for each other.

    Raises:
        SettingsError: the server lacks an extension that the store needs.
    """
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", _SCRIPTS)
        config.attributes |= {"connection": connection, "vector_store": vector_store}
        command.upgrade(config, "head")


def is_current(connection: Connection) -> bool:
    """Whether the database has the schema that this code expects, or a newer one.

    Older code runs on a newer schema during a deployment and after a rollback.
    """
    current = revision(connection)
    return current is not None and current >= head()  # revisions are numbers


def revision(connection: Connection) -> str | None:
    """The revision of the database's schema; None if it has none."""
    return MigrationContext.configure(connection).get_current_revision()


def head() -> str:
    """The newest revision of the schema that this code knows."""
    newest = ScriptDirectory(_SCRIPTS).get_current_head()
    assert newest is not None  # noqa: S101  # nosec B101
    return newest
