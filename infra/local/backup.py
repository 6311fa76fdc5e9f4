"""`make backup` and `make restore`: a file with all that cannot be derived, and the way back."""

import os
import shlex
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg2
from psycopg2 import errorcodes, sql

from infra.local.errors import CannotStartError
from infra.local.postgres_tools import PostgresTools, ToolError, read_revision
from shared.db.restored import NewerSchemaError, check_revision

Say = Callable[[str], None]

_IN_USE = "The database is in use: stop the API and the workers, then try again. Nothing has changed."
_MAX_NAME_BYTES = 63  # of PostgreSQL's identifiers


def default_name() -> str:
    """A name with the time, in UTC."""
    return f"promptwire-{datetime.now(UTC):%Y%m%d-%H%M%S}.dump"


def back_up(tools: PostgresTools, file: Path) -> None:
    """Write a backup, which only its owner can read, at once and whole. It never replaces a file.

    Raises:
        CannotStartError: it cannot be written; nothing is left of it.
    """
    part = file.with_name(f"{file.name}.part")
    try:
        if file.exists():
            raise CannotStartError(f"{file} exists: a backup never replaces a file.")
        if part.exists():
            raise CannotStartError(f"{part} exists: another backup is being written. If none is, delete it.")
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise CannotStartError(f"{file} cannot be written: {error.strerror}.") from error
    try:
        tools.dump(part)  # pg_dump keeps the mode of the file, and writes it to the disk
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)


def restore(
    tools: PostgresTools, file: Path, *, prepare: Callable[[str], None], replace: bool = False, say: Say = print
) -> None:
    """Restore a backup beside the present database, and put it in its place when all is well.

    Until then the present database is as it was, whatever fails.

    Args:
        prepare: Prepares the restored database for use; called with its name (see `shared.db.restored`).
        replace: Replace a database that is not empty.

    Raises:
        CannotStartError: the file is not a usable backup, the database is not empty, or is in use.
    """
    check(file)
    present = _contents(tools)
    if present and not replace:
        raise CannotStartError(
            f"The database is not empty: it has {present}. A restore deletes all of it; if that is right: "
            f"make restore FILE={shlex.quote(str(file))} ARGS=--replace"
        )
    restored, replaced = f"{tools.database}_restored", f"{tools.database}_replaced"
    if len(replaced.encode()) > _MAX_NAME_BYTES:  # PostgreSQL would cut them off, to the name of the present database
        raise CannotStartError(f"The database's name is too long to restore another one beside it: {tools.database}")
    with closing(tools.connect("postgres")) as server:
        server.autocommit = True
        if _is_used(server, tools.database):
            raise CannotStartError(_IN_USE)
        try:
            for left_over in (restored, replaced):
                _execute(server, "DROP DATABASE IF EXISTS {} WITH (FORCE)", left_over)
            _execute(server, "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'", restored)
            try:
                say(f"Restoring {file} …")
                try:
                    tools.restore(file, restored)
                    prepare(restored)
                except KeyboardInterrupt:
                    raise CannotStartError("Interrupted. Nothing has changed.") from None
                _swap(server, tools.database, restored, replaced)
            finally:
                _execute(server, "DROP DATABASE IF EXISTS {} WITH (FORCE)", restored)
            if present:
                say(f"Deleting what was there: {present}.")
            _execute(server, "DROP DATABASE IF EXISTS {} WITH (FORCE)", replaced)
        except ToolError as error:
            raise CannotStartError(f"{file} could not be restored: {error}. Nothing has changed.") from error
        except psycopg2.Error as error:
            raise CannotStartError(_explain(error)) from error
    say(f"Restored {_contents(tools)}. All users log in again.")


def check(file: Path) -> None:
    """Raise CannotStartError if the file is not a backup that this release can restore."""
    if not file.is_file() or not os.access(file, os.R_OK):
        raise CannotStartError(f"{file} is not a file that can be read.")
    try:
        revision = read_revision(file)
        if revision is None:
            raise CannotStartError(f"{file} is a dump of another database, not of Promptwire.")
        check_revision(revision)
    except ToolError as error:
        raise CannotStartError(f"{file} is not a backup, or is damaged. {error}") from error
    except NewerSchemaError as error:
        raise CannotStartError(f"{file} cannot be restored. {error}") from error


def _contents(tools: PostgresTools) -> str:
    """What the database has, in words; empty if it has nothing, or does not exist."""
    with closing(tools.connect("postgres")) as server, server.cursor() as cursor:
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", (tools.database,))
        if cursor.rowcount == 0:
            return ""
    with closing(tools.connect(tools.database)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
        tables = [name for (name,) in cursor.fetchall()]
        if "alembic_version" not in tables or "users" not in tables or "prompts" not in tables:
            return f"the tables {', '.join(tables)}" if tables else ""
        cursor.execute("SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM prompts)")
        (counts,) = cursor.fetchall()
        return " and ".join(map(_count, counts, ("user", "prompt"))) if any(counts) else ""


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _swap(server: "psycopg2.extensions.connection", name: str, restored: str, replaced: str) -> None:
    """Put the restored database in the place of the present one, if there is one: both at once, or neither."""
    with server.cursor() as cursor:
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
        names = [name, replaced, restored, name] if cursor.rowcount else [restored, name]
    _execute(server, "ALTER DATABASE {} RENAME TO {};" * (len(names) // 2), *names)  # one transaction


def _is_used(server: "psycopg2.extensions.connection", database: str) -> bool:
    """Whether others are connected to the database. One who has just left may still appear for a moment."""
    deadline = time.monotonic() + 0.5
    with server.cursor() as cursor:
        while True:
            cursor.execute(
                "SELECT FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'", (database,)
            )
            if cursor.rowcount == 0 or time.monotonic() > deadline:
                return cursor.rowcount > 0
            time.sleep(0.05)


def _execute(server: "psycopg2.extensions.connection", statement: str, *names: str) -> None:
    with server.cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _explain(error: psycopg2.Error) -> str:
    if error.pgcode == errorcodes.OBJECT_IN_USE:
        return _IN_USE
    said = str(error).strip().partition("\n")[0]
    return f"The database could not be restored: {said}. Nothing has changed."
