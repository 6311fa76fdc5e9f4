"""The schema's history (Alembic), and how to bring a database up to it."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

_SCRIPTS = str(Path(__file__).parent)


def upgrade(engine: Engine, *, vector_store: str = "faiss") -> None:
    """Migrates the database to the newest schema, and to what this store needs. Concurrent callers wait for each other.

    Raises:
        SettingsError: the server lacks what the store needs.
    """
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", _SCRIPTS)
        config.attributes |= {"connection": connection, "vector_store": vector_store}
        command.upgrade(config, "head")


def is_current(connection: Connection) -> bool:
    """Whether the database has the schema that this code expects, or a newer one.

    While a new release is brought in, or after it was taken back, older code runs on the newer schema.
    """
    revision, expected = MigrationContext.configure(connection).get_current_revision(), head()
    return revision is not None and expected is not None and revision >= expected  # they are numbered


def head() -> str | None:
    """The newest revision of the schema."""
    return ScriptDirectory(_SCRIPTS).get_current_head()
