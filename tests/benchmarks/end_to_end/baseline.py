"""What the machine allows: Valkey, PostgreSQL, and an empty Flask view under the same server as our API."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
from redis import Redis

from infra.local.data_folder import is_free
from tests.benchmarks.end_to_end.contenders import spread
from tests.benchmarks.end_to_end.generator import generator
from tests.benchmarks.end_to_end.resource_usage import Meter
from tests.benchmarks.end_to_end.scale import Scale
from tests.benchmarks.peers import serving
from tests.support import processes
from tests.support.servers import ROOT, Servers, wait_until

_QUEUE = "baseline"
_MESSAGE = b"x" * 200
_COMMITTERS = 8
_ROWS = 50
_CONNECTIONS = 32
_TABLE = "CREATE TABLE baseline (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text)"
_BODY = "x" * 100


def measure(servers: Servers, scale: Scale) -> dict[str, Any]:
    """Measure the rate of each operation per second, several times in alternation."""
    seconds = scale.baseline_seconds
    with contextlib.ExitStack() as stack:
        redis_url = stack.enter_context(serving.empty_keyspace(servers, 15))
        redis = stack.enter_context(Redis.from_url(redis_url))
        database = servers.postgres.url(stack.enter_context(servers.database()))
        _run(database, _TABLE)
        measure_requests = stack.enter_context(_empty_view(seconds))
        operations: dict[str, Callable[[], float]] = {
            "Valkey: LPUSH and BRPOP, one client": lambda: _per_second(lambda: _round_trip(redis), seconds),
            "PostgreSQL: commits of a row, one connection": lambda: _commits(database, 1, 1, seconds),
            f"PostgreSQL: commits of a row, {_COMMITTERS} connections": lambda: _commits(
                database, _COMMITTERS, 1, seconds
            ),
            f"PostgreSQL: rows, {_ROWS} a commit, one connection": lambda: (
                _ROWS * _commits(database, 1, _ROWS, seconds)
            ),
            "empty Flask view: requests": lambda: measure_requests()["per_second"],
        }
        rates: dict[str, list[float]] = {name: [] for name in operations}
        for _ in range(scale.rounds):
            for name, call in operations.items():
                rates[name].append(call())
        cpu_ms = measure_requests()["cpu_ms"]
    rows = {name: {"per_second": spread(values, 0)} for name, values in rates.items()}
    rows["empty Flask view: requests"]["cpu_ms"] = round(cpu_ms, 3)
    return rows


def _per_second(call: Callable[[], object], seconds: float) -> float:
    calls, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < seconds:
        call()
        calls += 1
    return calls / taken


def _round_trip(redis: Redis) -> None:
    redis.lpush(_QUEUE, _MESSAGE)
    redis.brpop(_QUEUE)


def _commits(database: str, connections: int, rows: int, seconds: float) -> float:
    """Return statements per second; each is an INSERT of `rows` rows in its own transaction."""
    statement = "INSERT INTO baseline (body) SELECT unnest(%s)"

    def commit(_: int) -> float:
        with contextlib.closing(psycopg2.connect(database)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                return _per_second(lambda: cursor.execute(statement, ([_BODY] * rows,)), seconds)

    with ThreadPoolExecutor(connections) as threads:
        return sum(threads.map(commit, range(connections)))


def _run(database: str, statement: str) -> None:
    with contextlib.closing(psycopg2.connect(database)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)


@contextlib.contextmanager
def _empty_view(seconds: float) -> Iterator[Callable[[], dict[str, float]]]:
    """Serve the empty view. Yield a function that measures requests per second and the server's CPU ms per request."""
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    # The settings of infra/gunicorn.conf.py, without our own worker class.
    command = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", "gevent", "--keep-alive", "30"]
    module = f"{__package__}.noop_app:app"
    running = subprocess.Popen(
        [sys.executable, "-m", *command, "--no-control-socket", "--log-level", "warning", module],
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        wait_until(lambda: not is_free("127.0.0.1", port), what="the empty view starting")
        with generator() as requester:

            def measure_requests() -> dict[str, float]:
                meter = Meter({"api": [running.pid]})
                found = requester.do(
                    "requests", meter.on_edge, url=url, path="/", connections=_CONNECTIONS, warm_up=0.3, seconds=seconds
                )
                return {
                    "per_second": found["answered"] / found["seconds"],
                    "cpu_ms": meter.seconds["api"] * 1e3 / found["answered"],
                }

            yield measure_requests
    finally:
        processes.kill(running)
