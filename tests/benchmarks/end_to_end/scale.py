"""The extent of a run."""

from argparse import Namespace
from dataclasses import dataclass

SECTIONS = ("throughput", "latency", "overload", "scalability", "baseline", "api_keys")


@dataclass(frozen=True)
class Scale:
    """The extent of a run. Times are in seconds."""

    rounds: int
    connections: tuple[int, ...]  #: the numbers tried in closed loops
    warm_up: float
    seconds: float
    latency_seconds: float
    overload_seconds: float
    baseline_seconds: float
    submissions: int  #: with a key and with a token, in a round
    scalability_seconds: float
    users: tuple[int, ...]
    stored: tuple[int, ...]
    sockets: tuple[int, ...]
    api_processes: tuple[int, ...]
    worker_processes: tuple[int, ...]
    quarter_rounds: int
    queued: int  #: prompts that wait for one and for two worker hosts


def scale_of(arguments: Namespace) -> Scale:
    """Return the scale that the command line asks for."""
    if arguments.quick:
        return Scale(
            rounds=arguments.rounds or 1,
            connections=(32,),
            warm_up=1.5,
            seconds=3,
            latency_seconds=3,
            overload_seconds=10,
            baseline_seconds=0.5,
            submissions=200,
            scalability_seconds=1,
            users=(10, 200),
            stored=(1_000, 10_000),
            sockets=(200, 1_000),
            api_processes=(1, 2),
            worker_processes=(1, 2),
            quarter_rounds=1,
            queued=1_000,
        )
    return Scale(
        rounds=arguments.rounds or 5,
        connections=(16, 32, 64, 128),
        warm_up=1,
        seconds=6,
        latency_seconds=10,
        overload_seconds=60,
        baseline_seconds=2,
        submissions=400,
        scalability_seconds=4,
        users=(10, 200, 2_000, 10_000),
        stored=(1_000, 10_000, 100_000, 1_000_000) + (10_000_000,) * arguments.full,
        sockets=(200, 2_000, 10_000),
        api_processes=(1, 2),
        worker_processes=(1, 2, 4),
        quarter_rounds=3,
        queued=6_000,
    )
