"""What a second process adds where it finds a free core, and where it does not, on a machine that has too few.

Each process under test has a quarter of a core, or all have one together. All others, clients and servers, have enough
in either case.
"""

import contextlib
import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import text

from api.services import make_services
from shared.db.models import DEFAULT_ROUTE
from shared.messaging.queue import MAX_PROMPTS_PER_MESSAGE, make_celery
from shared.prompts import submission
from shared.prompts.submission import NewPrompt
from shared.settings import Settings
from tests.benchmarks.cpu import family, server_pid
from tests.benchmarks.end_to_end import ours
from tests.benchmarks.end_to_end.contenders import FAULTS, USERS
from tests.benchmarks.end_to_end.cpu_quota import CpuQuotaError, limited
from tests.benchmarks.end_to_end.generator import users_of
from tests.benchmarks.end_to_end.resource_usage import OTHERS, Meter
from tests.benchmarks.end_to_end.scale import Scale
from tests.benchmarks.end_to_end.throughput import closed_loop
from tests.benchmarks.peers import serving
from tests.support import processes
from tests.support.servers import Servers, wait_until

API_AXIS = "API processes with a quarter of a core each"
SHARED_API_AXIS = "API processes that share a quarter of a core"
WORKER_AXIS = "worker hosts with a quarter of a core each"
_COUNTS = (1, 2)
_SHARE = 0.25
#: Of each API process: with more, it would refuse submissions that would wait for too long.
_CONNECTIONS = 32
_SECONDS = 300

_USERS = text("SELECT id FROM users ORDER BY id")
_ALL_ENDED = text("SELECT NOT EXISTS (SELECT FROM prompts WHERE due_at IS NOT NULL)")
_RATE = text("SELECT (count(*) / extract(epoch FROM max(completed_at) - min(completed_at)))::float FROM prompts")


def measure(servers: Servers, scale: Scale) -> dict[str, list[dict[str, Any]]]:
    """Return the points of all axes, or none if this machine allows no quotas."""
    try:
        return {
            axis: _medians([turn(servers, scale, count) for _ in range(scale.quarter_rounds) for count in _COUNTS])
            for axis, turn in _TURNS.items()
        }
    except CpuQuotaError as error:
        print(f"  not measured: {error}", flush=True)
        return {}


def _medians(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the turn with the median rate of each count. They alternate, because the machine's speed changes."""
    by_count = [sorted((turn for turn in turns if turn["at"] == count), key=_per_second) for count in _COUNTS]
    return [each[len(each) // 2] for each in by_count]


def _per_second(turn: dict[str, Any]) -> float:
    return float(turn["per_second"])


def _with_api_processes(servers: Servers, scale: Scale, count: int, *, share_one: bool = False) -> dict[str, Any]:
    """Measure a closed loop."""
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(ours.prepared(servers))
        accounts = ours.sign_up(settings, USERS)
        contender = stack.enter_context(ours.serve_on(servers, settings, accounts, api=count))
        generator = stack.enter_context(users_of(contender))
        api = [process.pid for process in psutil.Process(contender.parts["api"][0]).children()]
        for pids in [api] if share_one else [[pid] for pid in api]:
            stack.enter_context(limited(pids, _SHARE))
        found = closed_loop(contender, generator, count * _CONNECTIONS, scale.warm_up, scale.seconds)
    faults = {name: found[name] for name in FAULTS if found[name]}
    return _point(count, found["per_second"], found["cpu_ms"], faults, quarters=1 if share_one else count)


def _with_worker_hosts(servers: Servers, scale: Scale, count: int) -> dict[str, Any]:
    """Measure how fast prompts are answered that are queued already. Each host has one process."""
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(ours.prepared(servers))
        null_device = stack.enter_context(Path(os.devnull).open("wb"))
        hosts = []
        for number in range(count):
            command = processes.worker_command(f"bench-{number}", 1)
            worker = processes.start(command, settings, output=null_device, **processes.WORKER_ENVIRONMENT)
            stack.callback(processes.kill, worker)
            hosts.append(worker.pid)
        celery = stack.enter_context(contextlib.closing(make_celery(settings)))
        wait_until(lambda: len(celery.control.ping(timeout=1, limit=count)) == count, _SECONDS, "the worker hosts")
        parts = {"worker": hosts, "valkey": [serving.valkey_pid(servers)], "postgres": [server_pid(servers)]}
        for host in hosts:
            stack.enter_context(limited(family([host]), _SHARE))
        meter = Meter(parts)
        meter.on_edge("begin")
        per_second = _answer(settings, scale.queued)
        meter.on_edge("end")
    cpu_ms = {part: each * 1e3 / scale.queued for part, each in meter.seconds.items() if part != OTHERS}
    return _point(count, per_second, cpu_ms, {}, quarters=count)


def _answer(settings: Settings, count: int) -> float:
    """Queue prompts, and wake up workers for them. Return how many a second are answered."""
    ours.sign_up(settings, USERS)
    services = make_services(settings)
    with services.autocommit_engine.connect() as connection:
        user_ids = connection.execute(_USERS).scalars().all()
        new = [NewPrompt(user_id, f"Why are there tides, {user_id}?", False, "bench") for user_id in user_ids]
        for _ in range(count // len(new)):
            submission.submit(connection, new, grace=timedelta(minutes=10), attempt_limit=5)
        for _ in range(0, count, MAX_PROMPTS_PER_MESSAGE):
            services.queue.wake(DEFAULT_ROUTE, MAX_PROMPTS_PER_MESSAGE)
        wait_until(lambda: connection.execute(_ALL_ENDED).scalar_one(), _SECONDS, "the answers", pause=0.5)
        rate: float = connection.execute(_RATE).scalar_one()
    services.sessions.kw["bind"].dispose()
    services.autocommit_engine.dispose()
    return rate


def _point(
    count: int, per_second: float, cpu_ms: dict[str, float], faults: dict[str, int], *, quarters: int
) -> dict[str, Any]:
    print(f"  {count:,}: {per_second:,.0f} per second", flush=True)
    return {
        "at": count,
        "per_second": round(per_second, 1),
        "cores": {part: round(ms * per_second / 1e3, 2) for part, ms in cpu_ms.items()},
        "limit": f"{quarters * _SHARE} of a core",
        "faults": faults,
    }


_TURNS: dict[str, Callable[[Servers, Scale, int], dict[str, Any]]] = {
    API_AXIS: _with_api_processes,
    SHARED_API_AXIS: partial(_with_api_processes, share_one=True),
    WORKER_AXIS: _with_worker_hosts,
}
