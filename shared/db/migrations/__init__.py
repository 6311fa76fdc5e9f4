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
    revision, expected = MigrationContext.configure(connection).get_current_revision(), head()
    return revision is not None and expected is not None and revision >= expected  # revisions are numbers


def head() -> str | None:
    """The newest revision of the schema."""
    return ScriptDirectory(_SCRIPTS).get_current_head()
