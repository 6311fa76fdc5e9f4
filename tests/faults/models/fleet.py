"""A cluster whose worker hosts answer in threads, by a model server that is a process of its own."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from shared.messaging.queue import make_celery
from shared.settings import Settings
from tests.faults import cluster as clusters
from tests.faults.cluster import Cluster, Host
from tests.faults.models.scale import Scale
from tests.support import processes
from tests.support.servers import ROOT, Servers
from tests.support.streaming_server import Running, streaming_server

SETTINGS: dict[str, object] = clusters.SETTINGS | {
    "generator": "openai",
    "openai_model": "m",
    "soft_shutdown_seconds": 0.5,  # shorter than an answer
    "generation_timeout_seconds": 120,
}
LOG = ROOT / ".local" / "models.log"


class Fleet(Cluster):
    """Two API hosts and two worker hosts, whose settings choose the pool, and the model server."""

    log: Path = LOG

    def __init__(self, servers: Servers, settings: Settings, model: Running) -> None:
        self.model = model
        self._control = make_celery(settings).control
        super().__init__(servers, settings)

    @staticmethod
    def worker_command(name: str) -> list[str]:
        return processes.worker_command(name, None)

    def is_ready(self, worker: Host) -> bool:
        return bool(self._control.ping(destination=[f"{worker.name}@test"], timeout=1, limit=1))

    def has_worker(self) -> bool:
        """True: no fault of a fleet takes all of its hosts, and asking them often would burden them."""
        return True

    def are_workers_ready(self) -> bool:
        return all(map(self.is_ready, self.workers))


@contextlib.contextmanager
def running(scale: Scale) -> Iterator[Fleet]:
    """A fleet on servers of its own."""
    with streaming_server(chunks=scale.chunks, seconds=scale.seconds) as model:

        def make(servers: Servers, database: str) -> Fleet:
            changes = SETTINGS | {"openai_base_url": model.url, "lease_seconds": scale.seconds + 1}
            return Fleet(servers, servers.settings(database, **changes), model)

        with clusters.on_servers("models", make) as fleet:
            yield fleet
