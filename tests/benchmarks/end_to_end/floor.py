"""What the machine allows: its Valkey, its PostgreSQL, and an empty view of Flask under the server that serves ours."""

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
from tests.benchmarks.end_to_end.parts import Meter
from tests.benchmarks.end_to_end.scale import Scale
from tests.benchmarks.peers import serving
from tests.support import processes
from tests.support.servers import ROOT, Servers, wait_until

_QUEUE = "floor"
_MESSAGE = b"x" * 200
_COMMITTERS = 8
_ROWS = 50
_CONNECTIONS = 32
_TABLE = "CREATE TABLE floor (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text)"
_BODY = "x" * 100


def measure(servers: Servers, scale: Scale) -> dict[str, Any]:
    """Each a few times, in turns: how often a second."""
    seconds = scale.floor_seconds
    with contextlib.ExitStack() as stack:
        redis_url = stack.enter_context(serving.empty_keyspace(servers, 15))
        redis = stack.enter_context(Redis.from_url(redis_url))
        database = servers.postgres.url(stack.enter_context(servers.database()))
        _run(database, _TABLE)
        ask = stack.enter_context(_empty_view(seconds))
        tried: dict[str, Callable[[], float]] = {
            "Valkey: LPUSH and BRPOP, one client": lambda: _per_second(lambda: _round_trip(redis), seconds),
            "PostgreSQL: commits of a row, one connection": lambda: _commits(database, 1, 1, seconds),
            f"PostgreSQL: commits of a row, {_COMMITTERS} connections": lambda: _commits(
                database, _COMMITTERS, 1, seconds
            ),
            f"PostgreSQL: rows, {_ROWS} a commit, one connection": lambda: (
                _ROWS * _commits(database, 1, _ROWS, seconds)
            ),
            "empty Flask view: requests": lambda: ask()["per_second"],
        }
        found: dict[str, list[float]] = {name: [] for name in tried}
        for _ in range(scale.rounds):
            for name, call in tried.items():
                found[name].append(call())
        cpu_ms = ask()["cpu_ms"]
    rows = {name: {"per_second": spread(values, 0)} for name, values in found.items()}
    rows["empty Flask view: requests"]["cpu_ms"] = round(cpu_ms, 3)
    return rows


def _per_second(call: Callable[[], object], seconds: float) -> float:
    calls, begun = 0, time.perf_counter()
    while (taken := time.perf_counter() - begun) < seconds:
        call()
        calls += 1
    return calls / taken


def _round_trip(redis: Redis) -> None:
    redis.lpush(_QUEUE, _MESSAGE)
    redis.brpop(_QUEUE)


def _commits(database: str, connections: int, rows: int, seconds: float) -> float:
    """Statements a second, each an INSERT of so many rows and a transaction of its own."""
    statement = "INSERT INTO floor (body) SELECT unnest(%s)"

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
    """Asks it for so long: requests a second, and ms of the server's CPU for each."""
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    # As infra/gunicorn.conf.py has it, without what is ours there.
    command = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", "gevent", "--keep-alive", "30"]
    module = f"{__package__}.empty_view:app"
    running = subprocess.Popen(
        [sys.executable, "-m", *command, "--no-control-socket", "--log-level", "warning", module],
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        wait_until(lambda: not is_free("127.0.0.1", port), what="the empty view starting")
        with generator() as asking:

            def ask() -> dict[str, float]:
                meter = Meter({"api": [running.pid]})
                found = asking.do(
                    "requests", meter.on_edge, url=url, path="/", connections=_CONNECTIONS, warm_up=0.3, seconds=seconds
                )
                return {
                    "per_second": found["answered"] / found["seconds"],
                    "cpu_ms": meter.seconds["api"] * 1e3 / found["answered"],
                }

            yield ask
    finally:
        processes.kill(running)
