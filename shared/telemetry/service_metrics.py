"""Metrics of the whole service, which Postgres and Redis are asked for when the metrics are read."""

import threading
import time
from collections.abc import Iterable, Iterator

import structlog
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from shared.db.models import DEFAULT_ROUTE, UNFINISHED, Status
from shared.messaging.queue import Queue

log = structlog.get_logger(__name__)

#: A process asks at most this often, however many clients read the metrics.
CACHE_SECONDS = 1.0
#: More unfinished prompts are not counted: reading them takes longer than it is worth.
MAX_COUNTED = 100_000

# The index `prompts_due` has only unfinished prompts.
_UNFINISHED = text("""
    SELECT status, count(*), extract(epoch FROM now() - min(queued_at))
    FROM (SELECT status, queued_at FROM prompts WHERE due_at IS NOT NULL LIMIT :most) AS unfinished
    GROUP BY status
""")


_ROUTES = text("""
    SELECT known.route, least(CAST(:ceiling AS bigint), floor(concurrency)) AS concurrency,
        (SELECT count(*) FROM prompts WHERE prompts.route = known.route AND status = 'processing') AS running
    FROM (SELECT CAST(:route AS text) AS route UNION SELECT route FROM routes) AS known LEFT JOIN routes USING (route)
""")


class ServiceMetrics(Collector):
    """Collects at most every `cache_seconds`. Metrics of an unavailable server are left out, in bounded time, and
    `dependency_up` is 0.

    Args:
        ceiling: OPENAI_CONCURRENCY.
    """

    def __init__(
        self,
        autocommit_engine: Engine,
        queue: Queue,
        *,
        ceiling: int | None = None,
        cache_seconds: float = CACHE_SECONDS,
    ) -> None:
        self._autocommit_engine = autocommit_engine
        self._queue = queue
        self._ceiling = ceiling
        self._cache_seconds = cache_seconds
        self._lock = threading.Lock()
        self._cached: list[Metric] = []
        self._valid_until = 0.0

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            if time.monotonic() >= self._valid_until:
                self._cached = list(self._collect())
                self._valid_until = time.monotonic() + self._cache_seconds
            return self._cached

    def _collect(self) -> Iterator[Metric]:
        waiting = self._queue.length()
        unfinished = self._unfinished()
        if unfinished is not None:
            counts, oldest_age = unfinished
            depth = counts[Status.QUEUED]
            yield GaugeMetricFamily("promptwire_queue_depth", "Prompts waiting for a worker.", depth)
            prompts = GaugeMetricFamily("promptwire_prompts", "Unfinished prompts.", labels=["status"])
            for status, count in counts.items():
                prompts.add_metric([status], count)
            yield prompts
            yield GaugeMetricFamily(
                "promptwire_oldest_queued_seconds", "Age of the oldest queued prompt; 0 without one.", oldest_age
            )
            yield from self._routes()
        up = GaugeMetricFamily("promptwire_dependency_up", "Whether it answers.", labels=["dependency"])
        up.add_metric(["postgres"], unfinished is not None)
        up.add_metric(["redis"], waiting is not None)
        yield up

    def _routes(self) -> Iterator[Metric]:
        try:
            with self._autocommit_engine.connect() as connection:
                rows = connection.execute(_ROUTES, {"route": DEFAULT_ROUTE, "ceiling": self._ceiling}).all()
        except SQLAlchemyError as error:
            log.warning("postgres unavailable, metrics left out", error=type(error).__name__)
            return
        running = GaugeMetricFamily("promptwire_route_running", "Prompts that workers answer now.", labels=["route"])
        limits = GaugeMetricFamily(
            "promptwire_route_concurrency", "Prompts of a route at a time, at most.", labels=["route"]
        )
        for row in rows:
            running.add_metric([row.route], row.running)
            if row.concurrency is not None:
                limits.add_metric([row.route], row.concurrency)
        yield running
        yield limits

    def _unfinished(self) -> tuple[dict[str, int], float] | None:
        """Count unfinished prompts by status. Also returns the age of the oldest queued one, in seconds."""
        try:
            with self._autocommit_engine.connect() as connection:
                rows = connection.execute(_UNFINISHED, {"most": MAX_COUNTED}).all()
        except SQLAlchemyError as error:
            log.warning("postgres unavailable, metrics left out", error=type(error).__name__)
            return None
        counts, oldest_age = {status.value: 0 for status in UNFINISHED}, 0.0
        for status, count, age in rows:
            counts[status] = count
            if status == Status.QUEUED:
                oldest_age = float(age)
        return counts, oldest_age
