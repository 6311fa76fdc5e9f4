"""Metrics of the whole service, which Postgres and Redis are asked for when the metrics are read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import structlog
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from shared.cached_result import CachedResult
from shared.db.engine import cause
from shared.db.models import DEFAULT_ROUTE, UNFINISHED, UNFINISHED_BATCH, Status
from shared.messaging.queue import Queue

log = structlog.get_logger(__name__)

#: A process asks at most this often, however many clients read the metrics.
CACHE_SECONDS = 1.0
#: More unfinished prompts are not counted: reading them takes longer than it is worth.
MAX_COUNTED = 100_000

# The index `prompts_due` has only unfinished prompts.
_UNFINISHED = text("""
    SELECT status, route, count(*), extract(epoch FROM now() - min(queued_at))
    FROM (SELECT status, route, queued_at FROM prompts WHERE due_at IS NOT NULL LIMIT :most) AS unfinished
    GROUP BY status, route
""")
_MISSING_VECTORS = text("""
    SELECT count(*) FILTER (WHERE NOT is_given_up), count(*) FILTER (WHERE is_given_up)
    FROM (
        SELECT vector_due_at = 'infinity' AS is_given_up FROM prompts WHERE vector_due_at IS NOT NULL LIMIT :most
    ) AS missing
""")
_PENDING_DELIVERIES = text("""
    SELECT count(*) FROM (SELECT FROM webhook_deliveries WHERE status = 'pending' LIMIT :most) AS pending
""")
# The index `batches_due` has only unfinished batches, of which a user has a few.
_BATCHES = text("SELECT status, count(*) FROM batches WHERE due_at IS NOT NULL GROUP BY status")
_ROUTES = text("""
    SELECT route, unavailable_since IS NOT NULL AS is_paused, least(ceiling, floor(concurrency)) AS concurrency,
        (SELECT count(*) FROM prompts WHERE prompts.route = models.route AND status = 'processing') AS running
    FROM unnest(CAST(:routes AS text[]), CAST(:ceilings AS bigint[])) AS models(route, ceiling)
        FULL JOIN routes USING (route)
""")


_DEFAULT_CEILINGS: Mapping[str, int | None] = MappingProxyType({DEFAULT_ROUTE: None})


class _Route(NamedTuple):
    route: str
    is_paused: bool  #: whether its provider is unavailable
    concurrency: int | None  #: how many of its prompts run at a time, at most
    running: int


class _Queued(NamedTuple):
    """The queued prompts of a route."""

    prompts: int = 0
    oldest_age: float = 0  #: in seconds


class _Counts(NamedTuple):
    """What Postgres has."""

    prompts: Mapping[str, int]  #: unfinished ones, by status
    queued: Mapping[str, _Queued]  #: by route
    routes: Sequence[_Route]
    waiting: int  #: queued prompts whose provider is unavailable
    missing_vectors: Mapping[str, int]  #: completed prompts without a vector, by state
    pending_deliveries: int  #: to webhooks
    batches: Mapping[str, int]  #: unfinished ones, by status


class ServiceMetrics(Collector):
    """Collects at most every `cache_seconds`.

    Metrics of an unavailable server are left out, in bounded time, and `dependency_up` is 0.

    Args:
        ceilings: How many prompts of each model route all workers answer at a time; None: as many as it can handle.
    """

    def __init__(
        self,
        autocommit_engine: Engine,
        queue: Queue,
        *,
        ceilings: Mapping[str, int | None] = _DEFAULT_CEILINGS,
        cache_seconds: float = CACHE_SECONDS,
    ) -> None:
        self._autocommit_engine = autocommit_engine
        self._queue = queue
        self._ceilings = ceilings
        self._collected = CachedResult(lambda: list(self._collect()), cache_seconds)

    def collect(self) -> Iterable[Metric]:
        return self._collected()

    def _collect(self) -> Iterator[Metric]:
        length = self._queue.length(next(iter(self._ceilings)))
        counts = self._count()
        if counts is not None:
            yield from _families(counts)
        up = GaugeMetricFamily("promptwire_dependency_up", "Whether it answers.", labels=["dependency"])
        up.add_metric(["postgres"], counts is not None)
        up.add_metric(["redis"], length is not None)
        yield up

    def _count(self) -> _Counts | None:
        """Ask Postgres. Returns None if it is unavailable."""
        try:
            with self._autocommit_engine.connect() as connection:
                rows = connection.execute(_UNFINISHED, {"most": MAX_COUNTED}).all()
                parameters = {"routes": list(self._ceilings), "ceilings": list(self._ceilings.values())}
                routes = [_Route(*row) for row in connection.execute(_ROUTES, parameters)]
                due, given_up = connection.execute(_MISSING_VECTORS, {"most": MAX_COUNTED}).one()
                pending = connection.execute(_PENDING_DELIVERIES, {"most": MAX_COUNTED}).scalar_one()
                batches = dict.fromkeys((status.value for status in UNFINISHED_BATCH), 0)
                for status, count in connection.execute(_BATCHES):
                    batches[status] = count
        except SQLAlchemyError as error:
            log.warning("postgres unavailable, metrics left out", error=cause(error))
            return None
        prompts, waiting = {status.value: 0 for status in UNFINISHED}, 0
        queued = dict.fromkeys((each.route for each in routes), _Queued())
        paused = {each.route for each in routes if each.is_paused}
        for status, route, count, age in rows:
            prompts[status] += count
            if status == Status.QUEUED:
                queued[route] = _Queued(count, float(age))
                waiting += count if route in paused else 0
        return _Counts(prompts, queued, routes, waiting, {"due": due, "given_up": given_up}, pending, batches)


def _families(counts: _Counts) -> Iterator[Metric]:
    depth = counts.prompts[Status.QUEUED]
    yield GaugeMetricFamily("promptwire_queue_depth", "Prompts waiting for a worker.", depth)
    prompts = GaugeMetricFamily("promptwire_prompts", "Unfinished prompts.", labels=["status"])
    for status, count in counts.prompts.items():
        prompts.add_metric([status], count)
    yield prompts
    yield GaugeMetricFamily(
        "promptwire_oldest_queued_seconds",
        "Age of the oldest queued prompt; 0 without one.",
        max((each.oldest_age for each in counts.queued.values()), default=0),
    )
    yield from _queue_families(counts.queued)
    yield from _route_families(counts.routes)
    yield GaugeMetricFamily(
        "promptwire_prompts_waiting_for_provider", "Queued prompts whose provider is unavailable.", counts.waiting
    )
    vectors = GaugeMetricFamily("promptwire_vectors_missing", "Completed prompts without a vector.", labels=["state"])
    for state, count in counts.missing_vectors.items():
        vectors.add_metric([state], count)
    yield vectors
    yield GaugeMetricFamily(
        "promptwire_webhook_deliveries_pending", "Events that webhooks have not taken yet.", counts.pending_deliveries
    )
    batches = GaugeMetricFamily("promptwire_batches", "Unfinished batches.", labels=["status"])
    for status, count in counts.batches.items():
        batches.add_metric([status], count)
    yield batches


def _queue_families(queued: Mapping[str, _Queued]) -> Iterator[Metric]:
    depths = GaugeMetricFamily("promptwire_route_queue_depth", "Prompts waiting for a worker.", labels=["route"])
    ages = GaugeMetricFamily(
        "promptwire_route_oldest_queued_seconds", "Age of the oldest queued prompt; 0 without one.", labels=["route"]
    )
    for route, each in queued.items():
        depths.add_metric([route], each.prompts)
        ages.add_metric([route], each.oldest_age)
    yield from (depths, ages)


def _route_families(routes: Sequence[_Route]) -> Iterator[Metric]:
    paused = GaugeMetricFamily("promptwire_provider_paused", "Whether the provider is unavailable.", labels=["route"])
    running = GaugeMetricFamily("promptwire_route_running", "Prompts that workers answer now.", labels=["route"])
    limits = GaugeMetricFamily(
        "promptwire_route_concurrency", "Prompts of a route at a time, at most.", labels=["route"]
    )
    for each in routes:
        paused.add_metric([each.route], each.is_paused)
        running.add_metric([each.route], each.running)
        if each.concurrency is not None:
            limits.add_metric([each.route], each.concurrency)
    yield from (paused, running, limits)
