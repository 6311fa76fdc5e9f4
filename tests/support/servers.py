"""A PostgreSQL and a Valkey for the tests, and a database for each test."""

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

from infra.local.data_folder import DataFolder
from infra.local.servers import Postgres, Valkey
from infra.local.watchdog import shared_watchdog
from shared.db import migrations
from shared.db.engine import make_engine
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
SECRET = "a secret of the tests, which is long enough for every algorithm they try"

# What is lost if the machine fails does not matter here.
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


def make_settings(**changes: object) -> Settings:
    """Settings for a test, whatever the environment of the developer says."""
    defaults: dict[str, object] = {
        "app_env": "test",
        "jwt_secret_key": SECRET,
        "prompt_rate_limit": "1000/second",
        "feed_check_seconds": 0.5,
    }
    return Settings(_env_file=None, **(defaults | changes))  # type: ignore[arg-type]


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings as a process of ours reads them."""
    values = settings.model_dump(exclude_unset=True)
    plain = {k: v.get_secret_value() if hasattr(v, "get_secret_value") else v for k, v in values.items()}
    return {k.upper(): ",".join(v) if isinstance(v, tuple) else str(v) for k, v in plain.items()}


def wait_until(condition, seconds: float = 20, what: str = "it") -> None:
    """Returns once the condition holds; fails if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


class ServerProcess:
    """One of the servers as a process that can be stopped, killed, started again, and stalled."""

    def __init__(self, server: Postgres | Valkey, stop_signal: signal.Signals, **popen: Any) -> None:
        self._server = server
        self._stop_signal = stop_signal
        self._popen = popen
        self._process: subprocess.Popen | None = None
        server.initialise()

    def start(self) -> None:
        """Returns when it answers."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(self._server.command, **quiet, **self._popen)
        shared_watchdog().watch(self._process.pid)
        wait_until(self._server.is_ready, what=f"{self._server} starting")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(self._stop_signal)
            self._process.wait(timeout=20)

    def kill(self) -> None:
        """Kills it and its children, as kill -9 does."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):  # PostgreSQL's children end by themselves
                process.kill()
        self._process.wait()

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """Kills it, and starts it again afterwards."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Stops it and its children as SIGSTOP does: connections stay, answers do not come."""
        family = self._family()
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):  # a child that ended as soon as it could
                    process.resume()

    def _family(self) -> list[psutil.Process]:
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]


class Servers:
    """Both servers, in a folder that is deleted afterwards."""

    def __init__(self, name: str = "test", *, options: tuple[str, ...] = _FAST) -> None:
        self._path = ROOT / ".local" / f"{name}-{os.getpid()}"
        folder = DataFolder(self._path)
        self.postgres = Postgres(self._path / "postgres", folder.port("postgres"), "pg-secret", options=options)
        self.valkey = Valkey(self._path / "valkey", folder.port("valkey"), "vk-secret")
        self.redis_url = self.valkey.url
        self.postgres_process = ServerProcess(self.postgres, signal.SIGINT, **self.postgres.popen)
        self.valkey_process = ServerProcess(self.valkey, signal.SIGTERM)
        self._templates: set[str] = set()

    def start(self) -> None:
        self.postgres_process.start()
        self.valkey_process.start()
        self._make_template("faiss")

    def stop(self) -> None:
        self.postgres_process.stop()
        self.valkey_process.stop()
        shutil.rmtree(self._path)

    def _make_template(self, vector_store: str) -> None:
        """Makes a migrated database, once; others are copies of it."""
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

    @contextlib.contextmanager
    def database(self, vector_store: str = "faiss") -> Iterator[str]:
        """A new database that is migrated for this store, by name."""
        self._make_template(vector_store)
        with self.copy(f"template_{vector_store}") as name:
            yield name

    @contextlib.contextmanager
    def copy(self, template: str = "template1") -> Iterator[str]:
        """A new database like this one, by name; as PostgreSQL makes them, it is empty."""
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
        """The same settings but for these, for processes of ours too."""
        values = settings.model_dump(exclude_unset=True) | changes
        return Settings(_env_file=None, **values)

    def _execute(self, statement: str) -> None:
        with contextlib.closing(psycopg2.connect(self.postgres.url("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
