"""How our throughput and latency change with the number of users, stored prompts, sockets and processes."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import psutil

from shared.settings import Settings
from tests.benchmarks.end_to_end import ours, plans, quarters, seed_prompts
from tests.benchmarks.end_to_end.contender import Account, Contender
from tests.benchmarks.end_to_end.contenders import FAULTS, USERS
from tests.benchmarks.end_to_end.generator import users_of
from tests.benchmarks.end_to_end.latency import SHARE_OF_MAX
from tests.benchmarks.end_to_end.scale import Scale
from tests.benchmarks.end_to_end.throughput import GENERATOR, closed_loop
from tests.support.servers import Servers

#: A single process that uses this share of a core has reached its limit.
_SATURATED = 0.9
_SHARE_AT_KNEE = 0.8
#: How long the API is busy when a thousand sockets close simultaneously, in seconds.
_SECONDS_PER_1000_CLOSES = 0.5

Points = list[dict[str, Any]]


def measure(servers: Servers, scale: Scale) -> dict[str, Any]:
    """Return the points of each axis, in order, and the query plans at each number of stored prompts."""
    axes: dict[str, Points] = {
        "users": [],
        "stored prompts": [],
        "sockets": [],
        "API processes": [],
        "worker processes": [],
    }
    found: dict[str, Any] = {"axes": axes, "plans": {}}
    with ours.prepared(servers) as settings:
        accounts = ours.sign_up(settings, max(USERS, *scale.users, *scale.sockets))
        base_accounts = accounts[:USERS]
        with ours.serve_on(servers, settings, accounts) as contender:
            for users in scale.users:
                axes["users"].append(_point(replace(contender, accounts=accounts[:users]), scale, users))
            for sockets in scale.sockets:
                with_sockets = replace(contender, accounts=accounts[:sockets])
                axes["sockets"].append(_point(with_sockets, scale, sockets, active=USERS))
        for count in scale.api_processes:
            with ours.serve_on(servers, settings, base_accounts, api=count) as contender:
                axes["API processes"].append(_point(contender, scale, count))
        for count in scale.worker_processes:
            with ours.serve_on(servers, settings, base_accounts, workers=count) as contender:
                axes["worker processes"].append(_point(contender, scale, count))
    axes |= quarters.measure(servers, scale)
    for count, settings, base_accounts in _seeded(servers, scale.stored):
        found["plans"][str(count)] = plans.explained(settings)
        with ours.serve_on(servers, settings, base_accounts) as contender:
            axes["stored prompts"].append(_point(contender, scale, count))
    return found


def _seeded(servers: Servers, sizes: Sequence[int]) -> Iterator[tuple[int, Settings, list[Account]]]:
    """Yield one database with an increasing number of stored prompts."""
    with ours.prepared(servers) as settings:
        base_accounts = ours.sign_up(settings, USERS)
        for count in sizes:
            seconds = seed_prompts.seed(settings, count)
            print(f"  {count:,} prompts stored in {seconds:.0f} s", flush=True)
            yield count, settings, base_accounts


def _point(contender: Contender, scale: Scale, at: int, *, active: int | None = None) -> dict[str, Any]:
    """Measure a closed loop, and the latencies at a share of its rate; or return why it failed."""
    try:
        return _measured(contender, scale, at, active)
    except (psutil.NoSuchProcess, RuntimeError) as error:
        print(f"  {at:,}: {error}", flush=True)
        return {"at": at, "skipped": str(error)}
    finally:
        time.sleep(_SECONDS_PER_1000_CLOSES * len(contender.accounts) / 1e3)


def _measured(contender: Contender, scale: Scale, at: int, active: int | None) -> dict[str, Any]:
    with users_of(contender, active=active) as generator:
        maximum = closed_loop(contender, generator, max(scale.connections), scale.warm_up, scale.scalability_seconds)
        rate = max(SHARE_OF_MAX * maximum["per_second"], 1)
        paced = generator.do("open", rate=rate, warm_up=scale.warm_up, seconds=scale.scalability_seconds)
    latency = paced["push_ms"] or {}
    used = {part: ms * maximum["per_second"] / 1e3 for part, ms in maximum["cpu_ms"].items()}
    print(f"  {at:,}: {maximum['per_second']:,.0f} per second, p99 {latency.get('p99')} ms", flush=True)
    return {
        "at": at,
        "per_second": round(maximum["per_second"], 1),
        "rate": round(rate, 1),
        "push_p50_ms": latency.get("p50"),
        "push_p99_ms": latency.get("p99"),
        "cores": {part: round(each, 2) for part, each in used.items()},
        "others_cores": round(maximum["others_cores"], 2),
        "limit": _limit(used, maximum["others_cores"]),
        "api_rss_mib": maximum["peak_rss_mib"]["api"],
        "faults": {name: maximum[name] + paced[name] for name in FAULTS if maximum[name] + paced[name]},
    }


def measured(points: Points) -> Points:
    return [point for point in points if "skipped" not in point]


def knee(points: Points) -> dict[str, Any] | None:
    """Return the first point whose rate is below _SHARE_AT_KNEE of the best before it, or None."""
    best = 0.0
    for point in measured(points):
        if point["per_second"] < _SHARE_AT_KNEE * best:
            return point
        best = max(best, point["per_second"])
    return None


def _limit(used_by: dict[str, float], others: float) -> str:
    """Return what limits the rate, as far as CPU usage shows."""
    machine = os.cpu_count() or 1
    used = sum(used_by.values())
    services = {part: each for part, each in used_by.items() if part != GENERATOR}
    busiest = max(services, key=lambda part: services[part], default="nothing")
    if used >= _SATURATED * machine:
        return f"all {machine} cores, mostly {busiest}"
    if services.get("api", 0) >= _SATURATED:
        return "the API process"
    if used + others >= _SATURATED * machine:
        return f"other processes, which used {others:.1f} of {machine} cores"
    return f"waiting: {used:.1f} of {machine} cores busy, mostly {busiest}"
