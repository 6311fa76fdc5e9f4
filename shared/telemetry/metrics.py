"""What this process counts and times. `docs/observability.md` has a table of it all, held by a test.

What happens with every prompt is gathered, and written once a second or for a reader: to write it each time would take
as long as the rest of what there is to do for some prompts. A process that is killed takes its last second along.
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
    # The library looks only when it is loaded, which a plug-in of Celery's (Flower) does before we have said so.
    values.ValueClass = values.MultiProcessValue()

#: What this process itself has counted; with several processes, `exposition.py` reads their files instead.
REGISTRY = CollectorRegistry()
#: So many are written without waiting for the second to end.
_MAX_BUFFERED = 1_000

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_REQUEST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SLOW = (0.01, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

#: Held by threads of a process that forks while they write: one that is forked meanwhile would inherit the library's
#: lock, which nobody frees there.
fork_lock = threading.RLock()
os.register_at_fork(before=fork_lock.acquire, after_in_parent=fork_lock.release, after_in_child=fork_lock.release)

_gathered: list[Callable[[], None]] = []


class BufferedCounter:
    """A counter of what happens often."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._new: deque[int] = deque()
        _gathered.append(self.write)

    def add(self, count: int = 1) -> None:
        self._new.append(count)
        if len(self._new) >= _MAX_BUFFERED:
            self.write()

    def write(self) -> None:
        if total := sum(_drained(self._new)):
            self._counter.inc(total)


class BufferedHistogram:
    """A histogram, of seconds, of what happens often."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._new: deque[float] = deque()
        _gathered.append(self.write)

    def add(self, seconds: float) -> None:
        self._new.append(seconds)
        if len(self._new) >= _MAX_BUFFERED:
            self.write()

    def write(self) -> None:
        """As `observe` would for each, but each bucket once."""
        times = _drained(self._new)
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


def _drained(new: deque[Any]) -> list[Any]:
    return [new.popleft() for _ in range(len(new))]


def flush() -> None:
    """Writes what has been gathered."""
    with fork_lock:
        for write in _gathered:
            write()


def _counter(name: str, help_: str, *labels: str, known: tuple[str, ...] = ()) -> Counter:
    """Of its one label, the values that are known begin at 0: otherwise `rate` would miss the first of each."""
    counter = Counter(f"promptwire_{name}", help_, labels, registry=REGISTRY)
    for value in known:
        counter.labels(value)
    return counter


def _gauge(name: str, help_: str, *labels: str) -> Gauge:
    """Of all processes that live, the sum."""
    return Gauge(f"promptwire_{name}", help_, labels, registry=REGISTRY, multiprocess_mode="livesum")


def _histogram(name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"promptwire_{name}_seconds", help_, labels, registry=REGISTRY, buckets=buckets)


# --- What users see ---

_requests = _histogram(
    "http_request_duration", "Requests, without what they asked to wait.", _REQUEST, "route", "method", "status"
)


@cache
def requests(route: str, method: str, status_class: int) -> BufferedHistogram:
    """Those of a route's template and a class of statuses: 2 for 2xx."""
    return BufferedHistogram(_requests.labels(route, method, f"{status_class}xx"))


rate_limited = _counter("rate_limited", "Requests over a limit (429).", "route", "limit")
overload_refusals = BufferedCounter(_counter("overload_refusals", "Submissions refused for overload (503)."))
submitted = _counter("prompts_submitted", "Prompts stored.")
sockets = _gauge("sockets", "Open WebSockets.")
streams = _gauge("streams", "Open streams of server-sent events.")
_socket_events = _counter("socket_events_sent", "Events sent to WebSockets.", "kind")
finished_sent = BufferedCounter(_socket_events.labels("ending"))
deltas_sent = BufferedCounter(_socket_events.labels("delta"))
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
claims_lost = _counter("claims_lost", "Claims that were gone when the answer was there: cancelled, deleted, lapsed.")
rescues = _counter(
    "reaper_rescues", "Prompts that the reaper handed out again.", "kind", known=("lapsed", "lost", "paused")
)
given_up = _counter("prompts_given_up", "Prompts that the reaper failed: out of attempts.")
generations = BufferedHistogram(_histogram("generation_duration", "Generations that came to their end.", _SLOW))
first_chunks = BufferedHistogram(
    _histogram("generation_first_chunk", "From a generation's start to its first chunk.", _SLOW)
)
embeddings = BufferedHistogram(
    _histogram("embedding_duration", "Calls of the embedder, for one text or several.", _FAST)
)
cache_uses = _counter(
    "cache_requests",
    "Prompts that were to be answered from earlier ones.",
    "result",
    known=("hit", "miss", "request", "bypass"),
)
provider_pauses = _counter("provider_pauses", "Pauses after a provider was unavailable.")
tokens = _counter("tokens", "Tokens that answers took, as their providers say.", "kind", known=("prompt", "completion"))

# --- The machine ---

relay_reconnects = _counter("relay_reconnects", "Times that a relay's connection to Redis was made anew.")
loop_lag = BufferedHistogram(_histogram("event_loop_lag", "How late an API process's event loop woke up.", _FAST))
replica_bytes = _gauge("search_replica_bytes", "Memory of the FAISS replicas.")
connections_in_use = _gauge("database_connections_in_use", "Connections to PostgreSQL in use.")
connections_most = _gauge("database_connections_max", "Connections to PostgreSQL that there may be.")
resident_bytes = _gauge("resident_memory_bytes", "Resident memory, shared pages counted in each process.")
cpu_seconds = _counter("cpu_seconds", "CPU time, user and system.")
