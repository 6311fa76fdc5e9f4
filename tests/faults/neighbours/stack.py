"""The service that attackers and their neighbour share: one API process, and a worker host with two processes."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psutil
from sqlalchemy import Engine, text

from shared.db.engine import make_engine
from shared.settings import Settings
from tests.faults.cluster import Host
from tests.support import processes
from tests.support.providers import Commanded
from tests.support.servers import ROOT, Servers, wait_until

#: The defaults, but for the generator, and for the rate limit, which would keep attackers from queueing much.
#: Addresses are read from X-Forwarded-For, so that each attacker and the neighbour can have their own.
SETTINGS: dict[str, object] = {
    "generator": "tests.support.providers:one_by_one",
    "prompt_rate_limit": "1000/second",
    "feed_check_seconds": 5,
    "trusted_proxies": 1,
    "access_token_minutes": 1440,
    "log_level": "INFO",
    "log_format": "console",
}
WORKER_PROCESSES = 2
LOG = ROOT / ".local" / "neighbours.log"
_MIB = 2**20
_DELETE_UNFINISHED = "DELETE FROM prompts WHERE user_id = ANY(:users) AND status IN ('queued', 'processing')"


class Memory(NamedTuple):
    """Resident memory of the API's and of the worker's processes, in MiB."""

    api: int
    worker: int


class Stack:
    """The processes, on their own database."""

    def __init__(self, servers: Servers, settings: Settings) -> None:
        self.settings = settings
        self.redis_url = servers.redis_url
        self.engine: Engine = make_engine(settings, application_name="faults")
        port = processes.free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._api = Host("api", processes.API, settings, log=LOG, PORT=str(port), API_PROCESSES="1")
        command = processes.worker_command("worker", WORKER_PROCESSES)
        self._worker = Host("worker", command, settings, log=LOG, **processes.WORKER_ENVIRONMENT)

    def wait_until_ready(self) -> None:
        wait_until(lambda: processes.answers(self.url), what="the API starting")
        wait_until(lambda: len(self._worker.children()) >= WORKER_PROCESSES, what="the worker starting")

    def memory(self) -> Memory:
        return Memory(*(round(_resident(host) / _MIB) for host in (self._api, self._worker)))

    def process_ids(self) -> set[int]:
        """The ids of gunicorn's and Celery's processes that handle requests and prompts."""
        return {process.pid for host in (self._api, self._worker) for process in host.children()}

    def delete_unfinished(self, users: list[int]) -> None:
        """Delete what these users left in the queue, so that the next attack starts with an empty one."""
        with self.engine.begin() as connection:
            connection.execute(text(_DELETE_UNFINISHED), {"users": users})

    def watch_memory(self, is_over: Callable[[], bool], seconds: float) -> Memory:
        """Wait until it is over, for this long at most. Returns the highest values meanwhile."""
        peak, deadline = self.memory(), time.monotonic() + seconds
        while not is_over() and time.monotonic() < deadline:
            time.sleep(0.1)
            peak = Memory(*map(max, peak, self.memory()))
        return peak

    def stop(self) -> None:
        self._api.kill()
        self._worker.kill()
        self.engine.dispose()
        Commanded.absence.unlink(missing_ok=True)


def _resident(host: Host) -> int:
    total = 0
    for process in host.family():
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


@contextlib.contextmanager
def running() -> Iterator[Stack]:
    """The stack on servers of its own, which keep what they have confirmed as they do in production."""
    LOG.unlink(missing_ok=True)
    servers = Servers("neighbours", options=("max_connections=200",))
    try:
        servers.start()
        with servers.database() as name:
            stack = Stack(servers, servers.settings(name, **SETTINGS))
            try:
                stack.wait_until_ready()
                yield stack
            finally:
                stack.stop()
    finally:
        servers.stop()
