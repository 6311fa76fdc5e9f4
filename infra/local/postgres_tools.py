"""PostgreSQL's programs for backups, `pg_dump` and `pg_restore`, with the server of a database URL."""

import os
import re
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg2

from infra.local.errors import CannotStartError
from infra.local.servers import postgres_bin
from shared.settings import database_url

# Both are derived from `vector_log`: `make backup` leaves out what is rebuilt anyway. pgvector's tables are created
# again by the migrations; without their rows their HNSW indexes would be wrong.
_DERIVED = ("--exclude-table-data=segment*", "--exclude-table=pgvector_*")
_UNSAFE = re.compile(r"[^\x20-\x7e]")


class ToolError(CannotStartError):
    """A program failed. The message says which one, and its first error."""


class PostgresTools:
    """Runs the programs on a server.

    The password is passed in the environment, because all users of a machine can see command lines. Without one in the
    URL, libpq looks into ~/.pgpass.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        parsed = database_url.parse(url)
        self._shown = parsed.url._replace(drivername="postgresql", password=None)
        self.database = parsed.url.database or parsed.url.username or ""
        self._environment: dict[str, str] = {}
        if parsed.url.password:
            self._environment["PGPASSWORD"] = str(parsed.url.password)
        if parsed.hosts:
            self._environment["PGHOST"] = ",".join(host for host, _ in parsed.hosts)
            self._environment["PGPORT"] = ",".join(port for _, port in parsed.hosts)

    def connect(self, database: str) -> "psycopg2.extensions.connection":
        """Connect to a database of the server. Raises CannotStartError if that fails."""
        url = database_url.with_database(self.url, database).replace("+psycopg2", "", 1)
        try:
            return psycopg2.connect(url, connect_timeout=5, target_session_attrs="read-write")
        except psycopg2.OperationalError as error:
            raise CannotStartError(f"The database cannot be used: {str(error).strip()}") from error

    def dump(self, file: Path) -> None:
        """Write a compressed dump of the database in the custom format. Raises ToolError."""
        self._check_version(self.database)
        flags = ["--format=custom", "--no-owner", "--no-privileges", *_DERIVED]
        _run("pg_dump", *flags, f"--file={file}", self._dsn(self.database), **self._environment)

    def restore(self, file: Path, database: str) -> None:
        """Restore a dump into an empty database. Raises ToolError."""
        self._check_version(database)
        flags = ["--no-owner", "--no-privileges", "--no-comments", "--exit-on-error"]
        _run("pg_restore", *flags, self._dsn(database), str(file), **self._environment)

    def _check_version(self, database: str) -> None:
        """Raise CannotStartError if the server is newer than the programs, which they refuse."""
        ours = int(re.findall(r"\d+", _run("pg_dump", "--version"))[0])
        with closing(self.connect(database)) as connection:
            theirs = connection.server_version // 10_000
        if theirs > ours:
            raise CannotStartError(
                f"The server is PostgreSQL {theirs}, and pg_dump in {postgres_bin()} is {ours}: "
                f"set PG_BIN to the folder of the programs of PostgreSQL {theirs}."
            )

    def _dsn(self, database: str) -> str:
        return f"--dbname={self._shown.set(database=database).render_as_string()}"


def read_revision(file: Path) -> str | None:
    """The schema's revision in a dump; None if it is not one of Promptwire. Raises ToolError."""
    script = _run("pg_restore", "--data-only", "--table=alembic_version", "--file=-", str(file))
    found = re.search(r"^COPY .*alembic_version .*\n(\w+)$", script, re.MULTILINE)
    return found[1] if found else None


def _run(program: str, *arguments: str, **environment: str) -> str:
    """Run a program. Returns its output. Raises ToolError."""
    command = [str(postgres_bin() / program), *arguments]
    try:
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ToolError(f"{command[0]} cannot be run: {error.strerror}.") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line] or [f"exit code {done.returncode}"]
        raise ToolError(_UNSAFE.sub("?", f"{program}: {lines[0].removeprefix(f'{program}: ')}"))
    return done.stdout
