"""A PostgreSQL and a Valkey for the tests, and a database for each test."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg2

from infra.local.folder import DataFolder
from infra.local.servers import Postgres, Valkey
from shared import migrations
from shared.database import make_engine
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


class Servers:
    """Both servers, in a folder that is deleted afterwards."""

    def __init__(self) -> None:
        self._path = ROOT / ".local" / f"test-{os.getpid()}"
        folder = DataFolder(self._path)
        self.postgres = Postgres(self._path / "postgres", folder.port("postgres"), "pg-secret", options=_FAST)
        self.valkey = Valkey(self._path / "valkey", folder.port("valkey"), "vk-secret")
        self.redis_url = self.valkey.url
        self._processes: list[subprocess.Popen] = []

    def start(self) -> None:
        for server, popen in ((self.postgres, self.postgres.popen), (self.valkey, {})):
            server.initialise()
            self._processes.append(
                subprocess.Popen(server.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **popen)
            )
            wait_until(server.is_ready, what=f"{server} starting")
        self._execute('CREATE DATABASE "template"')
        engine = make_engine(self.settings("template"), application_name="test")
        migrations.upgrade(engine)
        engine.dispose()

    @property
    def postgres_pid(self) -> int:
        return self._processes[0].pid

    @property
    def valkey_pid(self) -> int:
        return self._processes[1].pid

    def stop(self) -> None:
        for process, number in zip(self._processes, (signal.SIGINT, signal.SIGTERM), strict=False):
            process.send_signal(number)
        for process in self._processes:
            process.wait(timeout=20)
        shutil.rmtree(self._path)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """A new migrated database, by name."""
        name = f"test_{uuid4().hex[:12]}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "template"')
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
