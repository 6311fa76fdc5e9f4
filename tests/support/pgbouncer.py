"""PgBouncer in transaction mode, in front of the tests' Postgres."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from infra.local.privileges import unprivileged
from infra.local.servers import USER
from tests.support import processes, watchdog
from tests.support.servers import MAX_WAIT_SECONDS, Servers, wait_until

#: So few sessions that a client's transactions run in different ones.
SESSIONS = 3


class PgBouncer:
    """A running PgBouncer. Each database of the server can be reached through it."""

    def __init__(self, servers: Servers, port: int) -> None:
        self._servers = servers
        self.port = port

    def url(self, database: str) -> str:
        direct = self._servers.postgres.url(database)
        return direct.replace(f":{self._servers.postgres.port}/", f":{self.port}/")

    def is_ready(self) -> bool:
        try:
            psycopg2.connect(self.url("postgres")).close()
        except psycopg2.OperationalError:
            return False
        return True


@contextlib.contextmanager
def running(servers: Servers, *, ignored_parameters: str = "", name: str = "pgbouncer") -> Iterator[PgBouncer]:
    """Start PgBouncer with these `ignore_startup_parameters`. Skips the test if it is not installed."""
    program = shutil.which("pgbouncer", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
    if program is None:
        pytest.skip("PgBouncer is not installed (apt-get install pgbouncer)")
    folder = servers.postgres.folder.parent / name
    folder.mkdir()
    identity = unprivileged(Path(program), folder)
    made = PgBouncer(servers, processes.free_port())
    for file, text in _files(servers, made.port, folder, ignored_parameters).items():
        (folder / file).write_text(text)
        identity.own(folder / file)
    command = [*identity.prefix, program, "-q", str(folder / "pgbouncer.ini")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **identity.popen)
    watchdog.watch(process.pid)
    try:
        wait_until(made.is_ready, what="PgBouncer starting")
        yield made
    finally:
        process.kill()
        process.wait(MAX_WAIT_SECONDS)
        shutil.rmtree(folder)


def _files(servers: Servers, port: int, folder: Path, ignored_parameters: str) -> dict[str, str]:
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": folder / "users.txt",
        "pool_mode": "transaction",
        "default_pool_size": SESSIONS,
        "ignore_startup_parameters": ignored_parameters,
    }
    lines = [f"{name} = {value}" for name, value in settings.items()]
    databases = ["[databases]", f"* = host=127.0.0.1 port={servers.postgres.port}", "[pgbouncer]"]
    return {"pgbouncer.ini": "\n".join([*databases, *lines, ""]), "users.txt": f'"{USER}" "pg-secret"\n'}
