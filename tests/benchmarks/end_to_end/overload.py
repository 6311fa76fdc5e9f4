"""Overload: our service at a multiple of the rate that it can sustain."""

import contextlib
import time
from typing import Any

import psycopg2
from redis import Redis

from shared.db.models import DEFAULT_ROUTE
from shared.messaging.queue import queue_name
from shared.settings import Settings
from tests.benchmarks.end_to_end import ours
from tests.benchmarks.end_to_end.contenders import USERS
from tests.benchmarks.end_to_end.generator import users_of
from tests.benchmarks.end_to_end.resource_usage import largest_rss_mib, peak_rss_mib
from tests.benchmarks.end_to_end.scale import Scale
from tests.benchmarks.end_to_end.throughput import closed_loop
from tests.support.servers import Servers

OVERLOAD_FACTOR = 3
_EMPTY_TIMEOUT_SECONDS = 120.0


def measure(servers: Servers, scale: Scale) -> dict[str, Any]:
    """Submit prompts at OVERLOAD_FACTOR times the rate that a closed loop has just reached."""
    with ours.prepared(servers) as settings:
        accounts = ours.sign_up(settings, USERS)
        with ours.serve_on(servers, settings, accounts) as contender, users_of(contender) as generator:
            before = closed_loop(contender, generator, max(scale.connections), scale.warm_up, scale.seconds)
            rate = OVERLOAD_FACTOR * before["per_second"]
            emptied: list[float | None] = []

            def on_edge(edge: str) -> None:
                if edge == "end":
                    emptied.append(_seconds_until_empty(settings))

            print(f"  {rate:,.0f} per second for {scale.overload_seconds:g} s", flush=True)
            found = generator.do(
                "open", on_edge, rate=rate, warm_up=0, seconds=scale.overload_seconds, even=True, recovery=True
            )
            return found | {
                "rate": round(rate, 1),
                "sustainable": round(before["per_second"], 1),
                "per_second": round(found["pushed_in_window"] / found["seconds"], 1),
                "emptied_s": emptied[0],
                "rss_before_mib": before["peak_rss_mib"],
                "peak_rss_mib": peak_rss_mib(contender.parts),
                "largest_process_mib": largest_rss_mib(contender.parts),
            }


def _seconds_until_empty(settings: Settings) -> float | None:
    """Wait until the queue is empty and at most one prompt (the recovery probe) is unfinished. Return the seconds."""
    started = time.perf_counter()
    with (
        Redis.from_url(settings.redis_url.get_secret_value()) as redis,
        contextlib.closing(psycopg2.connect(settings.database_url.get_secret_value())) as connection,
    ):
        connection.autocommit = True
        with connection.cursor() as cursor:
            while time.perf_counter() < started + _EMPTY_TIMEOUT_SECONDS:
                cursor.execute("SELECT count(*) FROM prompts WHERE due_at IS NOT NULL")
                (unfinished,) = cursor.fetchone()
                if unfinished <= 1 and not redis.llen(queue_name(DEFAULT_ROUTE)):
                    return round(time.perf_counter() - started, 3)
                time.sleep(0.05)
    return None
