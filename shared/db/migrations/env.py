"""Alembic's environment, for `shared.db.migrations.upgrade` and for the command line (`alembic upgrade head`)."""

import sys

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared.db.engine import is_unavailable, make_engine
from shared.db.models import Base
from shared.search.pgvector import tables
from shared.settings import SettingsError, load_settings_without_models

_ADVISORY_LOCK = 7_769_727_732  # an arbitrary number, the same for all migrators


def _migrate(connection: Connection, vector_store: str) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transactional_ddl=True,
        include_name=lambda name, kind, _: not (kind == "table" and tables.is_ours(name)),
    )
    with context.begin_transaction():
        # Migrating a large table, and waiting for another migrator, have no time limit.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
        context.run_migrations()
        if vector_store == "pgvector":
            tables.create_tables(connection)


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    _migrate(given, context.config.attributes["vector_store"])
else:
    try:
        settings = load_settings_without_models()
        with make_engine(settings, application_name="promptwire-migrate").begin() as own:
            _migrate(own, settings.vector_store)
    except SettingsError as error:
        sys.exit(f"The migration cannot start.\n{error}")
    except DBAPIError as error:
        if not is_unavailable(error):
            raise
        sys.exit(f"The database is unavailable: {str(error.orig).strip()}")
