"""Alembic's migrations, and how to apply them."""

import functools
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

_SCRIPTS = Path(__file__).parent


def upgrade(engine: Engine, *, vector_store: str = "faiss") -> None:
    """Migrate the database to the newest schema, including the store's tables. Concurrent callers wait for each other.

    Raises:
        SettingsError: the server lacks an extension that the store needs.
    """
    # Here, because loading Alembic takes a tenth of the start of an API process, which only asks for the revision.
    from alembic import command
    from alembic.config import Config

    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(_SCRIPTS))
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
    if not inspect(connection).has_table("alembic_version"):
        return None
    current: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return current


@functools.cache
def head() -> str:
    """The newest revision of the schema that this code knows. The names of the scripts begin with their revision."""
    return max(script.name.partition("_")[0] for script in _SCRIPTS.glob("versions/[0-9]*.py"))
