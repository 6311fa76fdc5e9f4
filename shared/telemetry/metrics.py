"""The metrics. `docs/observability.md` lists them, and a test compares.

Metrics that change with every prompt are buffered, and written once a second or when they are read: writing each change
would take as long as all other work for some prompts. A process that is killed loses its last second.
"""

import os
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    # The library reads the variable only when it is imported, which Flower's plug-in for Celery does before it is set.
    values.ValueClass = values.MultiProcessValue()

#: The metrics of this process. With several processes, `exposition.py` reads their files instead.
REGISTRY = CollectorRegistry()
#: A buffer of this length is written at once.
_MAX_BUFFERED = 1_000

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_REQUEST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SLOW = (0.01, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

#: Held while metrics are written and while the process forks: a child that is forked in the middle of a write would
#: inherit the library's lock, which nothing releases there.
fork_lock = threading.RLock()
os.register_at_fork(before=fork_lock.acquire, after_in_parent=fork_lock.release, after_in_child=fork_lock.release)

_flushes: list[Callable[[], None]] = []


class BufferedCounter:
    """A counter for frequent events."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._buffer: deque[int] = deque()
        _flushes.append(self.flush)

    def inc(self, count: int = 1) -> None:
        self._buffer.append(count)
        if len(self._buffer) >= _MAX_BUFFERED:
            self.flush()

    def flush(self) -> None:
        if total := sum(_drain(self._buffer)):
            self._counter.inc(total)


class BufferedHistogram:
    """A histogram, in seconds, for frequent events."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._buffer: deque[float] = deque()
        _flushes.append(self.flush)

    def observe(self, seconds: float) -> None:
        self._buffer.append(seconds)
        if len(self._buffer) >= _MAX_BUFFERED:
            self.flush()

    def flush(self) -> None:
        """Do what `Histogram.observe` would do for each, but update each bucket once."""
        times = _drain(self._buffer)
        if not times:
            return
        histogram: Any = self._histogram
        counts: dict[int, int] = {}
        for seconds in times:
            bucket = bisect_left(histogram._upper_bounds, seconds)
            counts[bucket] = counts.get(bucket, 0) + 1
        histogram._sum.inc(sum(times))
        for bucket, count in counts.items():
            histogram._buckets[bucket].inc(count)


def _drain(buffer: deque[Any]) -> list[Any]:
    return [buffer.popleft() for _ in range(len(buffer))]


def flush() -> None:
    """Write the buffers."""
    with fork_lock:
        for flush_one in _flushes:
            flush_one()


def _counter(name: str, help_: str, *labels: str, known: tuple[str, ...] = ()) -> Counter:
    """Values of its label that are `known` start at 0: otherwise `rate` would miss the first event of each."""
    counter = Counter(f"promptwire_{name}", help_, labels, registry=REGISTRY)
    for value in known:
        counter.labels(value)
    return counter


def _gauge(name: str, help_: str, *labels: str) -> Gauge:
    """A gauge that is summed over the live processes."""
    return Gauge(f"promptwire_{name}", help_, labels, registry=REGISTRY, multiprocess_mode="livesum")


def _histogram(name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"promptwire_{name}_seconds", help_, labels, registry=REGISTRY, buckets=buckets)


# --- What users see ---

_requests = _histogram(
    "http_request_duration", "Requests, without the time of `Prefer: wait`.", _REQUEST, "route", "method", "status"
)


@cache
def requests(route: str, method: str, status_class: int) -> BufferedHistogram:
    """The durations of a route template's requests with a class of statuses: 2 for 2xx."""
    return BufferedHistogram(_requests.labels(route, method, f"{status_class}xx"))


rate_limited = _counter("rate_limited", "Requests over a rate limit or a limit of one user (429).", "route", "limit")
overload_refusals = BufferedCounter(_counter("overload_refusals", "Submissions refused for overload (503)."))
submitted = _counter("prompts_submitted", "Prompts stored.")
sockets = _gauge("sockets", "Open WebSockets.")
streams = _gauge("streams", "Open streams of server-sent events.")
_socket_events = _counter("socket_events_sent", "Events sent to WebSockets.", "kind")
finished_sent = BufferedCounter(_socket_events.labels("ending"))
deltas_sent = BufferedCounter(_socket_events.labels("delta"))
progress_sent = BufferedCounter(_socket_events.labels("progress"))
replays_sent = BufferedCounter(_socket_events.labels("replay"))
stream_events = BufferedCounter(_counter("stream_events_sent", "Server-sent events sent."))
searches = BufferedHistogram(
    _histogram("search_duration", "Searches by meaning, the query's embedding included.", _FAST)
)

# --- The work ---

finished = _counter("prompts_finished", "Prompts that ended.", "status", known=("completed", "failed", "cancelled"))
attempts = _counter("attempts", "Claims of prompts by workers.")
attempts_failed = _counter(
    "attempts_failed", "Attempts that failed.", "reason", known=("provider", "unavailable", "timeout", "other")
)
claims_lost = _counter("claims_lost", "Claims lost before the answer was stored: cancelled, deleted, lapsed.")
rescues = _counter(
    "reaper_rescues", "Prompts that the reaper enqueued again.", "kind", known=("lapsed", "lost", "paused")
)
given_up = _counter("prompts_given_up", "Prompts that the reaper failed, out of attempts.")
generations = BufferedHistogram(_histogram("generation_duration", "Completed generations.", _SLOW))
first_chunks = BufferedHistogram(
    _histogram("generation_first_chunk", "From a generation's start to its first chunk.", _SLOW)
)
embeddings = BufferedHistogram(
    _histogram("embedding_duration", "Calls of the embedder, for one text or several.", _FAST)
)
cache_uses = _counter(
    "cache_requests",
    "Lookups in the semantic cache.",
    "result",
    known=("hit", "miss", "request", "bypass"),
)
provider_pauses = _counter(
    "provider_pauses", "Pauses after a provider was unavailable.", "cause", known=("unavailable", "overloaded")
)
concurrency_reductions = _counter(
    "concurrency_reductions", "Reductions of a route's concurrency because its provider was overloaded."
)
tokens = _counter("tokens", "Tokens used, as the providers report.", "kind", known=("prompt", "completion"))

# --- Webhooks ---

#: How an attempt at a delivery ended.
WEBHOOK_OUTCOMES = ("delivered", "refused", "unreachable", "given_up")
_webhook_attempts = _counter(
    "webhook_deliveries", "Attempts to deliver an event to a webhook.", "outcome", known=WEBHOOK_OUTCOMES
)
webhook_deliveries = {name: BufferedCounter(_webhook_attempts.labels(name)) for name in WEBHOOK_OUTCOMES}
webhook_durations = BufferedHistogram(
    _histogram("webhook_delivery_duration", "Requests to webhooks, until the status of the response.", _REQUEST)
)

# --- The machine ---

relay_reconnects = _counter("relay_reconnects", "Reconnects of a relay to Redis.")
loop_lag = BufferedHistogram(_histogram("event_loop_lag", "Delay of an API process's event loop.", _FAST))
replica_bytes = _gauge("search_replica_bytes", "Memory of the FAISS replicas.")
connections_in_use = _gauge("database_connections_in_use", "Connections to PostgreSQL in use.")
connections_max = _gauge("database_connections_max", "Limit of connections to PostgreSQL.")
resident_bytes = _gauge("resident_memory_bytes", "Resident memory, shared pages counted in each process.")
cpu_seconds = _counter("cpu_seconds", "CPU time, user and system.")
