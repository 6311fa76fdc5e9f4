"""`make up`: run PostgreSQL, Valkey, the migrations, the API, a worker and Flower in the foreground until stopped."""

import os
import re
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from types import FrameType

from celery import Celery
from kombu.exceptions import KombuError

from infra.local import preflight
from infra.local.data_folder import DataFolder, write_private
from infra.local.database import DEVELOPER, prepare_database
from infra.local.errors import CannotStartError
from infra.local.options import Options, load_with
from infra.local.output import Output
from infra.local.servers import POSTGRES_CHATTER, VALKEY_CHATTER, Postgres, Valkey
from infra.local.supervisor import ProcessSpec, Supervisor
from shared.messaging.queue import make_celery
from shared.settings import Settings
from worker.flower import USER as FLOWER_USER

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_APPS, _SERVERS = ("flower", "worker", "api"), ("valkey", "postgres")
_READY_SECONDS = 120
#: How often a process may end before it is ready.
_MAX_EXITS = 3
#: How long the API, the worker and Flower may take to stop beyond SOFT_SHUTDOWN_SECONDS.
_STOP_GRACE_SECONDS = 4.0
_CELERY = (sys.executable, "-m", "celery", "--quiet", "-A", "worker.app")
# Workers need not discover each other. -E sends the events that Flower shows.
_WORKER_FLAGS = ("-E", "--loglevel=INFO", "--hostname=local@%h", "--without-mingle", "--without-gossip")
# Celery prints these lines whenever it stops. A second Ctrl-C does nothing here.
_WORKER_CHATTER = re.compile(r"^$|Hitting Ctrl\+C again|^worker: (Cold|Warm) shutdown")


class Stack:
    """The whole service on one machine."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._folder = DataFolder(options.data_dir)
        self._output = Output()
        self._supervisor = Supervisor(self._folder.note_processes, self._output)
        # A plain flag: if a second signal interrupted `Event.set`, the event's lock would deadlock.
        self._stopping = False
        self._metrics_port = 0
        self._soft_shutdown_seconds = 0.0

    def run(self) -> bool:
        """Start everything, wait for SIGINT, SIGTERM or SIGHUP, and stop everything.

        It also stops if nobody can read its output any more. Returns False then, otherwise True.

        Raises:
            CannotStartError: something failed to start; everything else is stopped again.
        """
        previous = {number: signal.signal(number, self._on_signal) for number in _STOP_SIGNALS}
        try:
            with self._folder.locked():
                self._folder.end_leftovers()
                self._check_ports()
                try:
                    self._start()
                    while not self._is_stopping():
                        time.sleep(0.2)
                finally:
                    self._supervisor.say("Stopping …")
                    self._supervisor.stop(_APPS, self._soft_shutdown_seconds + _STOP_GRACE_SECONDS)
                    self._supervisor.stop(_SERVERS, 3)
                    self._supervisor.say("Stopped.")
                    self._supervisor.flush()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        return not self._output.is_closed()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _is_stopping(self) -> bool:
        return self._stopping or self._output.is_closed()

    def _start(self) -> None:
        environment = self._environment()
        settings = load_with(environment)
        self._metrics_port = settings.worker_metrics_port
        self._soft_shutdown_seconds = settings.soft_shutdown_seconds
        if self._is_stopping():
            return
        prepare_database(settings, self._folder)
        self._start_apps(environment)
        celery = make_celery(settings)
        is_up = self._wait("api", lambda: _answers(f"{self._url()}/readyz/"))
        if is_up and self._wait("worker", lambda: _pings(celery)):
            self._start_flower(environment)
            if self._wait("flower", lambda: _answers(f"{self._flower_url()}/healthcheck")):
                self._greet(settings)

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
        write_private(self._folder.path / "env", "".join(f"{name}={value}\n" for name, value in defaults.items()))
        return defaults | given

    def _start_postgres(self) -> str:
        server = Postgres.in_folder(self._folder)
        self._supervisor.start(
            ProcessSpec(
                "postgres",
                server.command,
                popen=server.popen,
                stop_signal=signal.SIGINT,
                chatter=self._unless_debugging(POSTGRES_CHATTER),
            )
        )
        advice = f"If its data in {server.folder} is damaged, see docs/operations.md."
        if self._wait("postgres", server.is_ready, advice):
            server.create_database()
        return server.url()

    def _start_valkey(self) -> str:
        server = Valkey(self._folder.path / "valkey", self._folder.port("valkey"), self._folder.secret("valkey"))
        server.initialise()
        self._supervisor.start(
            ProcessSpec(
                "valkey",
                server.command,
                chatter=self._unless_debugging(VALKEY_CHATTER),
                repair=server.set_damaged_data_aside,
            )
        )
        self._wait("valkey", server.is_ready)
        return server.url

    def _unless_debugging(self, chatter: re.Pattern[str]) -> re.Pattern[str] | None:
        return None if os.environ.get("LOG_LEVEL") == "DEBUG" else chatter

    def _start_apps(self, environment: dict[str, str]) -> None:
        api = [sys.executable, "-m", "gunicorn", "-c", "infra/gunicorn.conf.py", "api.wsgi:app"]
        self._supervisor.start(ProcessSpec("api", api, environment))
        # On SIGTERM the worker finishes what it can within SOFT_SHUTDOWN_SECONDS and releases the rest.
        self._supervisor.start(
            ProcessSpec(
                "worker",
                [*_CELERY, "worker", *_WORKER_FLAGS],
                environment | {"REMAP_SIGTERM": "SIGQUIT"},
                chatter=self._unless_debugging(_WORKER_CHATTER),
            )
        )

    def _start_flower(self, environment: dict[str, str]) -> None:
        """Start Flower after the worker, because it looks for workers only once."""
        password = environment.get("FLOWER_PASSWORD") or self._folder.secret("flower")
        self._folder.write_login("flower", FLOWER_USER, password)
        command = [sys.executable, "-m", "worker.flower"]
        self._supervisor.start(ProcessSpec("flower", command, environment | {"FLOWER_PASSWORD": password}))

    def _check_ports(self) -> None:
        options = self._options
        preflight.check_ports(options.host, {"PORT": options.port, "FLOWER_PORT": options.flower_port})

    def _wait(self, name: str, is_ready: Callable[[], bool], advice: str = "") -> bool:
        """Wait until a process is ready. Returns False if the stack is stopping.

        Raises:
            CannotStartError: it was not ready in time, or ended several times.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while not self._is_stopping():
            if is_ready():
                return True
            if self._supervisor.exits(name) >= _MAX_EXITS:
                raise CannotStartError(f"{name} ended {_MAX_EXITS} times: see its log above. {advice}".rstrip())
            if time.monotonic() > deadline:
                raise CannotStartError(
                    f"{name} was not ready in {_READY_SECONDS} s: see its log above. {advice}".rstrip()
                )
            time.sleep(0.05)
        return False

    def _url(self) -> str:
        return self._options.url(self._options.port)

    def _flower_url(self) -> str:
        return self._options.url(self._options.flower_port)

    def _greet(self, settings: Settings) -> None:
        if settings.app_env == "prod":
            user, login = "NAME", 'create one with make users ARGS="create NAME"'
        elif self._folder.has_secret(DEVELOPER):
            user, login = DEVELOPER, f"{DEVELOPER}, password {self._folder.secret(DEVELOPER)}"
        else:  # the database is a restored one, or another folder's
            user, login = DEVELOPER, f"{DEVELOPER}, with the password that the database has"
        lines = [
            "",
            "Promptwire is ready. Ctrl-C stops it.",
            f"  Page       {self._url()}/",
            f'  Console    {self._url()}/admin   (for admins: make users ARGS="set-admin {user}")',
            f"  API        {self._url()}/   (documented at /docs)",
            f"  WebSocket  {self._url().replace('http', 'ws', 1)}/ws/prompts/{user}/",
            f"  Flower     {self._flower_url()}/   (log in with {self._folder.path / 'flower.json'})",
            f"  Metrics    {self._url()}/metrics and {self._options.url(self._metrics_port)}/metrics",
            f"  User       {login}",
            "",
        ]
        for line in lines:
            self._supervisor.say(line)


def _answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  # nosec B310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _pings(celery: Celery) -> bool:
    """Whether a worker answers."""
    try:
        return bool(celery.control.ping(timeout=0.5))
    except (KombuError, OSError):
        return False
