"""A whole stack whose parts can be killed, stalled, stopped and restarted: two API hosts and two worker hosts."""

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil

from shared.settings import Settings
from tests.faults.event_recorder import EventRecorder
from tests.support import processes
from tests.support.servers import ROOT, Servers, wait_until

#: Shorter times than the defaults, so that faults are over sooner. Bounds are derived from these settings.
SETTINGS: dict[str, object] = {
    "generator": "tests.support.providers:commanded",
    "lease_seconds": 2,
    "reaper_seconds": 0.5,
    "submit_grace_seconds": 5,
    "retry_backoff_seconds": 0.2,
    "generation_timeout_seconds": 5,
    "soft_shutdown_seconds": 1,
    "feed_check_seconds": 1,
    "seal_from_vectors": 256,
    "access_token_minutes": 1440,
    "webhook_allow_private": True,
    "log_level": "ERROR",
}
WORKER_CHILDREN = 2  # processes of a worker host
#: The output of the hosts.
LOG = ROOT / ".local" / "faults.log"


class Host:
    """A process with children, which can be stopped and restarted."""

    def __init__(
        self, name: str, command: list[str], settings: Settings, *, log: Path = LOG, **environment: str
    ) -> None:
        self.name = name
        self._log = log
        self._command = command
        self._settings = settings
        self._environment = environment
        self.start()

    @contextlib.contextmanager
    def changed(self, **changes: str) -> Iterator[None]:
        """Restart with these changes of the environment, which hold for all starts within the block."""
        unchanged = self._environment
        self._environment = unchanged | changes
        self.stop()
        self.start()
        try:
            yield
        finally:
            self._environment = unchanged
        self.stop()
        self.start()

    def start(self, **changes: str) -> None:
        """Start, with these changes of the environment this time."""
        with self._log.open("ab") as log:
            environment = self._environment | changes
            self._process = processes.start(self._command, self._settings, output=log, **environment)

    def kill(self) -> None:
        processes.kill(self._process)

    def stop(self) -> float:
        """Stop with SIGTERM, as a deployment does. Return how many seconds it took. Fail after 30 s."""
        started = time.monotonic()
        self.terminate()
        self._process.wait(timeout=30)
        return time.monotonic() - started

    def terminate(self) -> None:
        """Send SIGTERM, and do not wait."""
        self._process.send_signal(signal.SIGTERM)

    def children(self) -> list[psutil.Process]:
        """Return the child processes. The list is empty while the host starts, and when it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children()
        return []

    def family(self) -> list[psutil.Process]:
        """Return the process and its children."""
        return [psutil.Process(self._process.pid), *self.children()]

    def signal_child(self, number: signal.Signals, rng: random.Random) -> bool:
        """Send a signal to a random child. Return whether there was one."""
        found = self.children()
        if not found:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            rng.choice(found).send_signal(number)
        return True

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None


class Cluster:
    """The servers and the hosts, on their own database."""

    log = LOG

    def __init__(self, servers: Servers, settings: Settings) -> None:
        self.servers = servers
        self.settings = settings
        self.log.unlink(missing_ok=True)
        ports = [processes.free_port() for _ in range(2)]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.apis = [
            Host(f"api-{i}", processes.API, settings, log=self.log, PORT=str(port), API_PROCESSES="1")
            for i, port in enumerate(ports)
        ]
        self.workers = [
            Host(name, self.worker_command(name), settings, log=self.log, **processes.WORKER_ENVIRONMENT)
            for name in ("worker-0", "worker-1")
        ]

    @staticmethod
    def worker_command(name: str) -> list[str]:
        return processes.worker_command(name, WORKER_CHILDREN)

    @property
    def hosts(self) -> list[Host]:
        return [*self.apis, *self.workers]

    def wait_until_ready(self) -> None:
        for url in self.urls:
            wait_until(lambda url=url: processes.answers(url), 60, f"{url} starting")
        for worker in self.workers:
            wait_until(lambda worker=worker: self.is_ready(worker), 60, f"{worker.name} starting")

    def is_ready(self, worker: Host) -> bool:
        """Whether the worker host has started."""
        return len(worker.children()) >= WORKER_CHILDREN

    def has_worker(self) -> bool:
        """Whether any worker host has started."""
        return any(map(self.is_ready, self.workers))

    def stop(self) -> None:
        for host in self.hosts:
            host.kill()


AnyCluster = TypeVar("AnyCluster", bound=Cluster)


def running() -> contextlib.AbstractContextManager[Cluster]:
    """A cluster on servers of its own."""
    return on_servers("faults", lambda servers, name: Cluster(servers, servers.settings(name, **SETTINGS)))


@contextlib.contextmanager
def on_servers(name: str, make: Callable[[Servers, str], AnyCluster]) -> Iterator[AnyCluster]:
    """A cluster on servers of its own, which keep what they have confirmed as they do in production.

    `make` gets the servers and the name of a database on them.
    """
    servers = Servers(name, options=("max_connections=200",))
    try:
        servers.start()
        with servers.database() as database:
            cluster = make(servers, database)
            try:
                cluster.wait_until_ready()
                EventRecorder(cluster.settings).install()
                yield cluster
            finally:
                cluster.stop()
    finally:
        servers.stop()
