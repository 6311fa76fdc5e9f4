"""Restoring backups in this process, and looking at what came of it."""

import contextlib
from pathlib import Path
from typing import Any

import psycopg2

from infra.local.backup import restore
from infra.local.backup_commands import prepare
from infra.local.postgres_tools import PostgresTools
from shared.settings import Settings


def tools_of(settings: Settings) -> PostgresTools:
    return PostgresTools(settings.database_url.get_secret_value())


def restore_into(settings: Settings, file: Path, *, replace: bool = False, **options: bool) -> str:
    """Restore a backup, with the options of `shared.db.restored.prepare`. Returns what it said."""
    said: list[str] = []
    restore(
        tools_of(settings),
        file,
        prepare=lambda name: prepare(settings, name, **options),
        replace=replace,
        say=said.append,
    )
    return "\n".join(said)


def rows(settings: Settings, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(psycopg2.connect(settings.database_url.get_secret_value())) as connection:
        cursor = connection.cursor()
        cursor.execute(query)
        return cursor.fetchall()
