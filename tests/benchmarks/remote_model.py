"""Prompts answered at a time by one worker host, with a model behind HTTP: `make benchmark NAME=remote_model`.

The model server streams 40 chunks in 4 s. Prompts of ten users are submitted as fast as the API takes them; the time
runs from the first submission until the last one has ended.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
from sqlalchemy import text

from shared.db.engine import make_engine
from shared.settings import Settings
from tests.benchmarks import published
from tests.support import people, processes
from tests.support.servers import Servers, wait_until
from tests.support.streaming_server import Running, streaming_server

CHUNKS, SECONDS, USERS = published.CHUNKS, 4.0, 10
COUNTS = (1, 200, 1_000)
_LIMITS = {"prompt_rate_limit": "100000/second", "user_backlog_limit": 100_000, "backlog_limit": 100_000}


def main() -> None:
    arguments = published.parser(__doc__).parse_args()
    figures = {}
    servers = Servers("benchmark")
    servers.start()
    try:
        with servers.database() as name, streaming_server(chunks=CHUNKS, seconds=SECONDS) as model:
            changes = {"generator": "openai", "openai_base_url": model.url, "openai_model": "m"} | _LIMITS
            settings = servers.settings(name, log_level="ERROR", **changes)
            command = ["celery", "-A", "worker.app", "worker", "-E", "--without-mingle", "--without-gossip"]
            with (
                processes.api(settings) as url,
                processes.process(command, settings, **processes.WORKER_ENVIRONMENT) as worker,
            ):
                run(settings, url, psutil.Process(worker.pid), model, 1)  # warms up
                for count in COUNTS:
                    figures[str(count)] = run(settings, url, psutil.Process(worker.pid), model, count)
                    report(count, figures[str(count)])
    finally:
        servers.stop()
    if arguments.write:
        published.write("remote_model", figures)


def run(settings: Settings, url: str, worker: psutil.Process, model: Running, count: int) -> dict[str, float]:
    members = people.make(settings, USERS, f"many-{time.monotonic_ns()}")
    engine = make_engine(settings, application_name="benchmark", autocommit=True)
    before, cpu = model.stats(), _cpu(worker)
    peak = _Peak(worker, model)
    started = time.monotonic()
    with ThreadPoolExecutor(USERS) as pool:
        for _ in pool.map(lambda i: submit(url, members[i], count // USERS or int(i < count)), range(USERS)):
            pass
    submitted = time.monotonic() - started
    with engine.connect() as connection:
        unfinished = text("SELECT count(*) FROM prompts WHERE status IN ('queued', 'processing')")
        wait_until(lambda: connection.scalar(unfinished) == 0, seconds=600, what="the answers")
        seconds = time.monotonic() - started
        failed = connection.scalar(text("SELECT count(*) FROM prompts WHERE status <> 'completed' OR attempt > 1"))
    peak.stop()
    engine.dispose()
    requests = model.stats()["started"] - before["started"]
    return {
        "submitted": round(submitted, 2),
        "seconds": round(seconds, 2),
        "most": peak.running,
        "requests": requests,
        "failed": failed,
        "memory_mb": round(peak.memory),
        "cpu_us_per_chunk": round((_cpu(worker) - cpu) / requests / CHUNKS * 1e6),
    }


def submit(url: str, person: people.Person, count: int) -> None:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {person.token}"}, timeout=60) as http:
        for number in range(count):
            http.post("/prompts/", json={"prompt_text": f"prompt {number}", "websocket": True}).raise_for_status()


class _Peak:
    """The highest memory of the worker, in MB (PSS of all of its processes), and the most answers at a time."""

    def __init__(self, worker: psutil.Process, model: Running) -> None:
        self.memory, self.running = 0.0, 0
        self._worker, self._model, self._over = worker, model, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            members = [self._worker, *self._worker.children(recursive=True)]
            self.memory = max(self.memory, sum(each.memory_full_info().pss for each in members) / 1e6)
            self.running = max(self.running, self._model.stats()["now"])


def _cpu(worker: psutil.Process) -> float:
    members = [worker, *worker.children(recursive=True)]
    return sum(sum(each.cpu_times()[:2]) for each in members)


def report(count: int, figures: dict[str, float]) -> None:
    print(
        f"{count:5} prompts: {figures['seconds']:6.1f} s (submitted in {figures['submitted']:.1f} s), "
        f"{figures['most']:.0f} at a time, {figures['requests']:.0f} requests, {figures['failed']:.0f} failed, "
        f"worker {figures['memory_mb']:.0f} MB, {figures['cpu_us_per_chunk']:.0f} µs of CPU a chunk"
    )


if __name__ == "__main__":
    main()
