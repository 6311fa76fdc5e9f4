"""A standby of the tests' Postgres, which can become the primary."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg2

from infra.local.servers import Postgres, postgres_bin
from tests.support import processes
from tests.support.servers import ServerProcess, Servers, wait_until


class Standby:
    """A standby, at `port`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self.port = postgres.port

    def promote(self) -> None:
        """Make it a primary, and return when it is."""
        self._query("SELECT pg_promote()")

    def catch_up(self, primary: Postgres) -> None:
        """Return when it has all that the primary has committed."""
        with contextlib.closing(psycopg2.connect(primary.url("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                # The tests' server does not wait for its log; this commit does, and for what is before it.
                cursor.execute("SET synchronous_commit = on")
                cursor.execute("SELECT pg_logical_emit_message(true, 'flush', '')")
                cursor.execute("SELECT pg_current_wal_flush_lsn()")
                ((written,),) = cursor.fetchall()
        replayed = f"SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn"
        wait_until(lambda: self._query(replayed), what="replication")

    def _query(self, query: str) -> bool:
        with (
            contextlib.closing(psycopg2.connect(self._postgres.url("postgres"))) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(query)
            ((value,),) = cursor.fetchall()
            return value


class _Copied(Postgres):
    """A server whose data was copied from another."""

    def initialise(self) -> None:
        """Nothing is left to do."""


@contextlib.contextmanager
def standby(servers: Servers) -> Iterator[Standby]:
    """Copy the primary, and start the copy as its standby."""
    folder = servers.postgres.folder.parent / "standby"
    # A standby does not start with fewer connections than its primary.
    copy = _Copied(folder, processes.free_port(), "pg-secret", options=("fsync=off", "max_connections=200"))
    command = [*copy._identity.prefix, str(postgres_bin() / "pg_basebackup"), "-d", servers.postgres.url("postgres")]
    arguments = ["-D", str(folder), "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
    subprocess.run([*command, *arguments], check=True, capture_output=True, **copy.popen)
    folder.chmod(0o700)
    running = ServerProcess(copy, signal.SIGINT, log=Path(os.devnull), **copy.popen)
    running.start()
    try:
        yield Standby(copy)
    finally:
        running.stop()
        shutil.rmtree(folder)
