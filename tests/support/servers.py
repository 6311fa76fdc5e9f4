"""A PostgreSQL and a Valkey server for the tests, and databases on them."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg2
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from redis import Redis

from infra.local.data_folder import DataFolder
from infra.local.servers import Postgres, Valkey
from shared.db import migrations
from shared.db.engine import make_engine
from shared.settings import Settings
from tests.support import watchdog

ROOT = Path(__file__).parents[2]
SECRET = "a secret of the tests, which is long enough for every algorithm they try"

_POSTGRES_PASSWORD = "pg-secret"

#: How long a test waits for an event before it fails. Waits return as soon as the event happens, so this is only for
#: tests that fail, and generous enough for a machine that is ten times slower.
MAX_WAIT_SECONDS = 300

#: For connections of the tests themselves: a statement that waits for a lock for longer fails.
_PATIENCE = {"connect_timeout": MAX_WAIT_SECONDS, "options": f"-c statement_timeout={MAX_WAIT_SECONDS}s"}

# Data that a power failure would lose does not matter here.
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


class _GivenSettings(Settings):
    """Settings from arguments alone. To look for each field in the environment takes longer than most requests."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        **_: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def make_settings(**changes: object) -> Settings:
    """Settings for a test, independent of the developer's environment. By default nothing listens at its addresses."""
    defaults: dict[str, object] = {
        "app_env": "test",
        "database_url": "postgresql://u:p@127.0.0.1:9/d",
        "redis_url": "redis://127.0.0.1:9/0",
        "jwt_secret_key": SECRET,
        "prompt_rate_limit": "1000/second",
        "feed_check_seconds": 0.5,
    }
    return _GivenSettings(**(defaults | changes))  # type: ignore[arg-type]


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings as environment variables."""
    values = settings.model_dump(exclude_unset=True)
    plain = {k: v.get_secret_value() if hasattr(v, "get_secret_value") else v for k, v in values.items()}
    return {k.upper(): ",".join(v) if isinstance(v, tuple) else str(v) for k, v in plain.items()}


def wait_until(condition, seconds: float = MAX_WAIT_SECONDS, what: str = "it", *, pause: float = 0.02) -> None:
    """Wait until the condition holds; fail if that takes longer. It is looked at every `pause` seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(pause)


class ServerProcess:
    """A server's process, which can be stopped, killed, restarted and stalled."""

    def __init__(
        self, server: Postgres | Valkey, stop_signal: signal.Signals, *, log: Path = Path(os.devnull), **popen: Any
    ) -> None:
        self._server = server
        self._log = log
        self._stop_signal = stop_signal
        self._popen = popen
        self._process: subprocess.Popen | None = None
        server.initialise()

    def start(self) -> None:
        """Start the server, and return when it answers."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(self._server.command, stdout=output, stderr=output, **self._popen)
        watchdog.watch(self._process.pid)
        wait_until(self._server.is_ready, what=f"{self._server} starting")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(self._stop_signal)
            self._process.wait(timeout=MAX_WAIT_SECONDS)

    def kill(self) -> None:
        """Kill the server and its children, as kill -9 does."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):  # PostgreSQL's children end by themselves
                process.kill()
        self._process.wait(MAX_WAIT_SECONDS)

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """Kill the server, and start it again at the end of the block."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Stop the server and its children with SIGSTOP: connections stay open, and get no answers."""
        family = self._family()
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):  # a child that exits when it continues
                    process.resume()

    def _family(self) -> list[psutil.Process]:
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]


# What a test may change besides rows: tables, columns, constraints, triggers, functions, settings, alembic's revision.
_SCHEMA = """
SELECT md5(string_agg(item, ',' ORDER BY item)) FROM (
    SELECT 'class ' || oid AS item FROM pg_class WHERE oid >= 16384 AND relpersistence <> 't'
    UNION ALL SELECT 'column ' || attrelid || attname || atttypid || attnotnull FROM pg_attribute
        WHERE attrelid >= 16384
    UNION ALL SELECT 'constraint ' || oid FROM pg_constraint WHERE oid >= 16384
    UNION ALL SELECT 'trigger ' || oid || tgenabled::text FROM pg_trigger WHERE oid >= 16384
    UNION ALL SELECT 'function ' || oid || xmin::text FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT 'setting ' || setconfig::text FROM pg_db_role_setting
    UNION ALL SELECT 'revision ' || version_num FROM alembic_version
) AS items"""
# As DROP DATABASE … WITH (FORCE) does: what the last test left behind must not write into the next one's database.
_DISCONNECT_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"""
_DELETES = """
SELECT format('DELETE FROM %I;', tablename) FROM pg_tables
WHERE schemaname = 'public' AND tablename <> 'alembic_version'"""
_RESTART_SEQUENCES = "SELECT setval(format('%I.%I', schemaname, sequencename), 1, false) FROM pg_sequences"


class _ReusedDatabase:
    """A database whose rows are deleted before each test, over a connection that is kept."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._url = url
        self._connection: Any = None
        self._schema = self._read_schema()

    def reset(self) -> bool:
        """Delete all rows. Returns False if a test has changed the schema, so that the database is not usable."""
        for _ in range(2):  # the connection is lost if a test has restarted the server
            with contextlib.suppress(psycopg2.Error):
                return self._reset()
            self._connection = None
        return False

    def _reset(self) -> bool:
        # pg_terminate_backend could wait itself, but it looks every 100 ms.
        wait_until(lambda: not self._execute(_DISCONNECT_OTHERS), what="the others' disconnection", pause=0.002)
        if self._read_schema() != self._schema:
            self._connection.close()
            return False
        self._execute("SET session_replication_role = replica")  # no foreign keys, so any order will do
        deletes = [delete for (delete,) in self._execute(_DELETES)]
        self._execute("".join(deletes) + _RESTART_SEQUENCES)
        return True

    def _read_schema(self) -> str:
        return self._execute(_SCHEMA)[0][0]

    def _execute(self, statement: str) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = psycopg2.connect(self._url, **_PATIENCE)
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def running_servers() -> Iterator["Servers"]:
    """Both servers, started, for the block."""
    servers = Servers()
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


class Servers:
    """Both servers, with their data in a folder that is deleted afterwards."""

    def __init__(self, name: str = "test", *, options: tuple[str, ...] = _FAST) -> None:
        self._path = ROOT / ".local" / f"{name}-{os.getpid()}"
        watchdog.watch_folder(self._path)
        folder = DataFolder(self._path)
        self.postgres = Postgres(self._path / "postgres", folder.port("postgres"), _POSTGRES_PASSWORD, options=options)
        self.valkey = Valkey(self._path / "valkey", folder.port("valkey"), "vk-secret")
        self.redis_url = self.valkey.url
        self.postgres_log = self._path / "postgres.log"
        self.postgres_process = ServerProcess(
            self.postgres, signal.SIGINT, log=self.postgres_log, **self.postgres.popen
        )
        self.valkey_process = ServerProcess(self.valkey, signal.SIGTERM)
        self._templates: set[str] = set()
        self._reused: dict[str, _ReusedDatabase] = {}

    def start(self) -> None:
        self.postgres_process.start()
        self.valkey_process.start()
        self._make_logins_cheap()
        self._make_template("faiss")

    def stop(self) -> None:
        self.postgres_process.stop()
        self.valkey_process.stop()
        shutil.rmtree(self._path)
        watchdog.unwatch_folder(self._path)

    def _make_logins_cheap(self) -> None:
        """Hash the password once, not 4096 times, from PostgreSQL 16 on: that is most of what a connection costs us."""
        set_iterations = "SELECT set_config(name, '1', false) FROM pg_settings WHERE name = 'scram_iterations'"
        self._execute(f"{set_iterations}; ALTER ROLE CURRENT_USER PASSWORD '{_POSTGRES_PASSWORD}'")

    def _make_template(self, vector_store: str) -> None:
        """Create a migrated database, once; the others are copies of it."""
        if vector_store in self._templates:
            return
        name = f"template_{vector_store}"
        self._execute(f'CREATE DATABASE "{name}"')
        engine = make_engine(self.settings(name), application_name="test")
        try:
            migrations.upgrade(engine, vector_store=vector_store)
        finally:
            engine.dispose()
        self._templates.add(vector_store)

    def empty_database(self, vector_store: str = "faiss") -> str:
        """Return the name of a database without rows, which tests share one after the other.

        Deleting rows takes 1 ms; creating and dropping a database takes 100 ms.
        """
        reused = self._reused.get(vector_store)
        if reused is None or not reused.reset():
            self._make_template(vector_store)
            name = f"reused_{vector_store}"
            self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            self._execute(f'CREATE DATABASE "{name}" TEMPLATE "template_{vector_store}"')
            reused = self._reused[vector_store] = _ReusedDatabase(name, self.postgres.url(name))
        return reused.name

    @contextlib.contextmanager
    def database(self, vector_store: str = "faiss") -> Iterator[str]:
        """Create a database migrated for this store. Yields its name."""
        self._make_template(vector_store)
        with self.copy(f"template_{vector_store}") as name:
            yield name

    @contextlib.contextmanager
    def copy(self, template: str = "template1") -> Iterator[str]:
        """Create a copy of a database; without a template, an empty one. Yields its name."""
        name = f"test_{uuid4().hex[:12]}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield name
        finally:
            self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def settings(self, database: str, **changes: object) -> Settings:
        return make_settings(**({"database_url": self.postgres.url(database), "redis_url": self.redis_url} | changes))

    @staticmethod
    def changed(settings: Settings, **changes: object) -> Settings:
        """The same settings with these changes, also as `environment_of` writes them."""
        values = settings.model_dump(exclude_unset=True) | changes
        return _GivenSettings(**values)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Make Postgres read-only, also for the sessions that exist. They are not closed."""
        self._set_read_only("on")
        try:
            yield
        finally:
            self._set_read_only("off")

    def redis(self) -> Redis:
        """A client of Valkey."""
        return Redis.from_url(self.redis_url, socket_timeout=MAX_WAIT_SECONDS)

    @contextlib.contextmanager
    def redis_refusing(self, why: str) -> Iterator[None]:
        """Have Valkey refuse writes as a "replica", for lack of "memory", or because it cannot write to its "disk"."""
        with self.redis() as client:
            if why == "replica":
                client.replicaof("127.0.0.1", "9")  # of a server that does not exist
            elif why == "memory":
                client.config_set("maxmemory", 1)
            else:
                self._fail_to_save(client)
            try:
                yield
            finally:
                client.replicaof("NO", "ONE")
                client.config_set("maxmemory", 0)
                client.config_set("save", "")

    def _fail_to_save(self, client: Redis) -> None:
        """Let a snapshot fail: its file is a folder."""
        (self.valkey.folder / "dump.rdb").mkdir(exist_ok=True)
        client.config_set("save", "3600 1")
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="the snapshot")

    def _set_read_only(self, value: str) -> None:
        self._execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        self._execute("SELECT pg_reload_conf()")
        wait_until(lambda: self._execute("SHOW default_transaction_read_only") == [(value,)], what="the reload")

    def _execute(self, statement: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(psycopg2.connect(self.postgres.url("postgres"), **_PATIENCE)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
