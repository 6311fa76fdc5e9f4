"""`make up`: run PostgreSQL, Valkey, the migrations, the API, a worker and Flower in the foreground until stopped."""

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from types import FrameType

from celery import Celery
from kombu.exceptions import KombuError
from sqlalchemy.exc import DBAPIError

from infra.local import preflight
from infra.local.data_folder import DataFolder
from infra.local.errors import CannotStartError
from infra.local.options import Options
from infra.local.servers import Postgres, Valkey
from infra.local.supervisor import ProcessSpec, Supervisor
from shared.accounts import users
from shared.db import migrations
from shared.db.engine import Sessions, make_engine, make_sessions
from shared.messaging.queue import make_celery
from shared.settings import Settings, SettingsError, load_settings

DEVELOPER = "alice"
_APPS, _SERVERS = ("flower", "worker", "api"), ("valkey", "postgres")
_READY_SECONDS = 60
#: How long the API, the worker and Flower may take to stop beyond SOFT_SHUTDOWN_SECONDS.
_STOP_GRACE_SECONDS = 4.0
_CELERY = (sys.executable, "-m", "celery", "--quiet", "-A", "worker.app")
# Workers need not discover each other. -E sends the events that Flower shows.
_WORKER_FLAGS = ("-E", "--loglevel=INFO", "--hostname=local@%h", "--without-mingle", "--without-gossip")


class Stack:
    """The whole service on one machine."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._folder = DataFolder(options.data_dir)
        self._supervisor = Supervisor(self._folder.note_processes)
        # A plain flag: if a second signal interrupted `Event.set`, the event's lock would deadlock.
        self._stopping = False
        self._metrics_port = 0
        self._soft_shutdown_seconds = 0.0

    def run(self) -> None:
        """Start everything, wait for SIGINT, SIGTERM or SIGHUP, and stop everything.

        Raises:
            CannotStartError: something failed to start; everything else is stopped again.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        with self._folder.locked():
            self._folder.end_leftovers()
            self._check_ports()
            try:
                self._start()
                while not self._stopping:
                    time.sleep(0.2)
            finally:
                self._supervisor.say("Stopping …")
                self._supervisor.stop(_APPS, self._soft_shutdown_seconds + _STOP_GRACE_SECONDS)
                self._supervisor.stop(_SERVERS, 3)
                self._supervisor.say("Stopped.")
                self._supervisor.flush()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _start(self) -> None:
        environment = self._environment()
        settings = _settings(environment)
        self._metrics_port = settings.worker_metrics_port
        self._soft_shutdown_seconds = settings.soft_shutdown_seconds
        self._prepare_database(settings)
        self._start_apps(environment)
        celery = make_celery(settings)
        is_up = self._wait("the API", self._is_ready) and self._wait("the worker", lambda: _pings(celery))
        if is_up:
            self._start_flower(environment)
            self._greet()

    def _environment(self) -> dict[str, str]:
        """Start the servers whose addresses are not set, and return the environment of the other processes."""
        defaults = {
            "JWT_SECRET_KEY": self._folder.secret("jwt"),
            "PUBLIC_URL": self._url(),
            "FLOWER_URL": self._flower_url(),
            "WORKER_METRICS_PORT": str(self._folder.port("worker-metrics")),
            "PYTHONUNBUFFERED": "1",
        }
        given = {name: value for name, value in os.environ.items() if value}
        if "DATABASE_URL" not in given:
            defaults["DATABASE_URL"] = self._start_postgres()
        if "REDIS_URL" not in given:
            defaults["REDIS_URL"] = self._start_valkey()
        self._folder.write_private(
            self._folder.path / "env", "".join(f"{name}={value}\n" for name, value in defaults.items())
        )
        return defaults | given

    def _start_postgres(self) -> str:
        server = Postgres(
            self._folder.path / "postgres", self._folder.port("postgres"), self._folder.secret("postgres")
        )
        server.initialise()
        self._supervisor.start(ProcessSpec("postgres", server.command, popen=server.popen, stop_signal=signal.SIGINT))
        if self._wait("PostgreSQL", server.is_ready):
            server.create_database()
        return server.url()

    def _start_valkey(self) -> str:
        server = Valkey(self._folder.path / "valkey", self._folder.port("valkey"), self._folder.secret("valkey"))
        server.initialise()
        self._supervisor.start(ProcessSpec("valkey", server.command))
        self._wait("Valkey", server.is_ready)
        return server.url

    def _prepare_database(self, settings: Settings) -> None:
        if self._stopping:
            return
        engine = make_engine(settings, application_name="promptwire-up")
        try:
            migrations.upgrade(engine, vector_store=settings.vector_store)
            self._add_developer(make_sessions(engine))
        except DBAPIError as error:
            raise CannotStartError(f"The database cannot be used: {str(error.orig).strip()}") from error
        except SettingsError as error:
            raise CannotStartError(str(error)) from error
        finally:
            engine.dispose()

    def _add_developer(self, sessions: Sessions) -> None:
        """Create a user for trying things out, and a file with the login."""
        password = self._folder.secret(DEVELOPER)
        with sessions.begin() as session:
            if users.find(session, DEVELOPER) is None:
                users.create(session, DEVELOPER, users.hash_password(password))
        self._write_login(DEVELOPER, password)

    def _write_login(self, username: str, password: str) -> None:
        login = json.dumps({"username": username, "password": password})
        self._folder.write_private(self._folder.path / f"{username}.json", login + "\n")

    def _start_apps(self, environment: dict[str, str]) -> None:
        if self._stopping:
            return
        options = self._options
        environment = environment | {"LISTEN_ADDRESS": options.host, "PORT": str(options.port)}
        api = [sys.executable, "-m", "gunicorn", "-c", "infra/gunicorn.conf.py", "api.wsgi:app"]
        self._supervisor.start(ProcessSpec("api", api, environment))
        # On SIGTERM the worker finishes what it can within SOFT_SHUTDOWN_SECONDS and releases the rest.
        self._supervisor.start(
            ProcessSpec("worker", [*_CELERY, "worker", *_WORKER_FLAGS], environment | {"REMAP_SIGTERM": "SIGQUIT"})
        )

    def _start_flower(self, environment: dict[str, str]) -> None:
        """Start Flower after the worker, because it looks for workers only once.

        It needs a password, because it can show and stop all tasks. The password is passed in the environment, because
        all users of the machine can see command lines.
        """
        password = self._folder.secret("flower")
        self._write_login("flower", password)
        flower = ["flower", f"--address={self._options.host}", f"--port={self._options.flower_port}", "--logging=error"]
        auth = {"FLOWER_BASIC_AUTH": f"flower:{password}"}
        self._supervisor.start(ProcessSpec("flower", [*_CELERY, *flower], environment | auth))

    def _check_ports(self) -> None:
        options = self._options
        preflight.check_ports(options.host, {"PORT": options.port, "FLOWER_PORT": options.flower_port})

    def _wait(self, what: str, is_ready: Callable[[], bool]) -> bool:
        """Wait until it is ready. Returns False if the stack is stopping; raises CannotStartError after a timeout."""
        deadline = time.monotonic() + _READY_SECONDS
        while not self._stopping:
            if is_ready():
                return True
            if time.monotonic() > deadline:
                raise CannotStartError(f"{what} was not ready within {_READY_SECONDS} s: see its log above.")
            time.sleep(0.05)
        return False

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url()}/readyz/", timeout=2) as answer:  # noqa: S310  # nosec B310
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _url(self) -> str:
        return self._options.url(self._options.port)

    def _flower_url(self) -> str:
        return self._options.url(self._options.flower_port)

    def _greet(self) -> None:
        lines = [
            "",
            "Promptwire is ready. Ctrl-C stops it.",
            f"  Page       {self._url()}/",
            f"  API        {self._url()}/   (documented at /docs)",
            f"  WebSocket  {self._url().replace('http', 'ws', 1)}/ws/prompts/{DEVELOPER}/",
            f"  Flower     {self._flower_url()}/   (log in with {self._folder.path / 'flower.json'})",
            f"  Metrics    {self._url()}/metrics and {self._options.url(self._metrics_port)}/metrics",
            f"  User       {DEVELOPER}, password {self._folder.secret(DEVELOPER)}",
            "",
        ]
        for line in lines:
            self._supervisor.say(line or " ")
        self._supervisor.flush()


def _pings(celery: Celery) -> bool:
    """Whether a worker answers."""
    try:
        return bool(celery.control.ping(timeout=0.5))
    except (KombuError, OSError):
        return False


def _settings(environment: dict[str, str]) -> Settings:
    """Load the settings as the processes will. Raises CannotStartError once, before each process fails by itself."""
    os.environ.update(environment)
    try:
        return load_settings()
    except SettingsError as error:
        raise CannotStartError(str(error)) from error
