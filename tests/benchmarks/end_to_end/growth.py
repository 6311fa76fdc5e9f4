"""How throughput and latency of ours change with what there is: users, stored prompts, sockets, processes."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import psutil

from shared.settings import Settings
from tests.benchmarks.end_to_end import ours, plans, stored
from tests.benchmarks.end_to_end.contender import Account, Contender
from tests.benchmarks.end_to_end.contenders import FAULTS, USERS
from tests.benchmarks.end_to_end.generator import users_of
from tests.benchmarks.end_to_end.latency import SHARE_OF_THE_MOST
from tests.benchmarks.end_to_end.scale import Scale
from tests.benchmarks.end_to_end.throughput import GENERATOR, closed_loop
from tests.support.servers import Servers

#: A part with one process cannot use more than this of a core and still do more.
_FULL = 0.9
_SHARE_AT_THE_KNEE = 0.8
#: A thousand sockets that are closed all at once keep the API busy for so long, in seconds.
_LEAVING_SECONDS = 0.5

Points = list[dict[str, Any]]


def measure(servers: Servers, scale: Scale) -> dict[str, Any]:
    """Points of each axis, in its order, and the plans of the queries at each number of stored prompts."""
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
        few = accounts[:USERS]
        with ours.serve_on(servers, settings, accounts) as contender:
            for users in scale.users:
                axes["users"].append(_point(replace(contender, accounts=accounts[:users]), scale, users))
            for sockets in scale.sockets:
                crowd = replace(contender, accounts=accounts[:sockets])
                axes["sockets"].append(_point(crowd, scale, sockets, active=USERS))
        for count in scale.api_processes:
            with ours.serve_on(servers, settings, few, api=count) as contender:
                axes["API processes"].append(_point(contender, scale, count))
        for count in scale.worker_processes:
            with ours.serve_on(servers, settings, few, workers=count) as contender:
                axes["worker processes"].append(_point(contender, scale, count))
    for count, settings, few in _filled(servers, scale.stored):
        found["plans"][str(count)] = plans.explained(settings)
        with ours.serve_on(servers, settings, few) as contender:
            axes["stored prompts"].append(_point(contender, scale, count))
    return found


def _filled(servers: Servers, sizes: Sequence[int]) -> Iterator[tuple[int, Settings, list[Account]]]:
    """One database with ever more prompts stored."""
    with ours.prepared(servers) as settings:
        few = ours.sign_up(settings, USERS)
        for count in sizes:
            seconds = stored.fill_up(settings, count)
            print(f"  {count:,} prompts stored in {seconds:.0f} s", flush=True)
            yield count, settings, few


def _point(contender: Contender, scale: Scale, at: int, *, active: int | None = None) -> dict[str, Any]:
    """What a closed loop reaches, and latencies at a share of that; or how it went wrong."""
    try:
        return _measured(contender, scale, at, active)
    except (psutil.NoSuchProcess, RuntimeError) as error:
        print(f"  {at:,}: {error}", flush=True)
        return {"at": at, "skipped": str(error)}
    finally:
        time.sleep(_LEAVING_SECONDS * len(contender.accounts) / 1e3)


def _measured(contender: Contender, scale: Scale, at: int, active: int | None) -> dict[str, Any]:
    with users_of(contender, active=active) as generator:
        most = closed_loop(contender, generator, max(scale.connections), scale.warm_up, scale.growth_seconds)
        rate = max(SHARE_OF_THE_MOST * most["per_second"], 1)
        paced = generator.do("open", rate=rate, warm_up=scale.warm_up, seconds=scale.growth_seconds)
    latency = paced["push_ms"] or {}
    cores = {part: ms * most["per_second"] / 1e3 for part, ms in most["cpu_ms"].items()}
    print(f"  {at:,}: {most['per_second']:,.0f} a second, p99 {latency.get('p99')} ms", flush=True)
    return {
        "at": at,
        "per_second": round(most["per_second"], 1),
        "rate": round(rate, 1),
        "push_p50_ms": latency.get("p50"),
        "push_p99_ms": latency.get("p99"),
        "cores": {part: round(each, 2) for part, each in cores.items()},
        "others_cores": round(most["others_cores"], 2),
        "limit": _limit(cores, most["others_cores"]),
        "api_rss_mib": most["peak_rss_mib"]["api"],
        "faults": {name: most[name] + paced[name] for name in FAULTS if most[name] + paced[name]},
    }


def measured(points: Points) -> Points:
    return [point for point in points if "skipped" not in point]


def knee(points: Points) -> dict[str, Any] | None:
    """The first point at which less is done than _SHARE_AT_THE_KNEE of what was before, if there is one."""
    best = 0.0
    for point in measured(points):
        if point["per_second"] < _SHARE_AT_THE_KNEE * best:
            return point
        best = max(best, point["per_second"])
    return None


def _limit(cores: dict[str, float], others: float) -> str:
    """What keeps it from doing more, as far as CPU tells."""
    machine = os.cpu_count() or 1
    used = sum(cores.values())
    services = {part: each for part, each in cores.items() if part != GENERATOR}
    most = max(services, key=lambda part: services[part], default="nothing")
    if used >= _FULL * machine:
        return f"all {machine} cores, most of it {most}"
    if services.get("api", 0) >= _FULL:
        return "the API process"
    if used + others >= _FULL * machine:
        return f"others, who had {others:.1f} of {machine} cores"
    return f"waiting: {used:.1f} of {machine} cores busy, most of it {most}"
