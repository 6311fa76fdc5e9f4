"""How the whole service stands, as Postgres and Redis tell when the metrics are read."""

import threading
import time
from collections.abc import Iterable, Iterator

import structlog
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from shared.db.models import UNFINISHED, Status
from shared.messaging.queue import Queue

log = structlog.get_logger(__name__)

#: However many read the metrics, a process looks no more often.
SECONDS = 1.0
#: More unfinished prompts than these are not counted: to look at them takes longer than it is worth.
MAX_COUNTED = 100_000

# The index `prompts_due` has only those that are unfinished.
_UNFINISHED = text("""
    SELECT status, count(*), extract(epoch FROM now() - min(queued_at))
    FROM (SELECT status, queued_at FROM prompts WHERE due_at IS NOT NULL LIMIT :most) AS unfinished
    GROUP BY status
""")


class ServiceMetrics(Collector):
    """Looks at most once in so many seconds. What is away is left out, in bounded time, and `dependency_up` says so."""

    def __init__(self, autocommit_engine: Engine, queue: Queue, *, seconds: float = SECONDS) -> None:
        self._autocommit_engine = autocommit_engine
        self._queue = queue
        self._seconds = seconds
        self._lock = threading.Lock()
        self._seen: list[Metric] = []
        self._good_until = 0.0

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            if time.monotonic() >= self._good_until:
                self._seen = list(self._look())
                self._good_until = time.monotonic() + self._seconds
            return self._seen

    def _look(self) -> Iterator[Metric]:
        waiting = self._queue.length()
        unfinished = self._unfinished()
        if waiting is not None:
            yield GaugeMetricFamily("promptwire_queue_depth", "Messages that wait for a worker.", waiting)
        if unfinished is not None:
            counts, oldest = unfinished
            prompts = GaugeMetricFamily("promptwire_prompts", "Unfinished prompts.", labels=["status"])
            for status, count in counts.items():
                prompts.add_metric([status], count)
            yield prompts
            yield GaugeMetricFamily(
                "promptwire_oldest_queued_seconds", "Since the oldest queued prompt was queued; 0 without one.", oldest
            )
        up = GaugeMetricFamily("promptwire_dependency_up", "Whether it answered just now.", labels=["dependency"])
        up.add_metric(["postgres"], unfinished is not None)
        up.add_metric(["redis"], waiting is not None)
        yield up

    def _unfinished(self) -> tuple[dict[str, int], float] | None:
        """How many prompts there are of each status, and the age of the oldest queued one in seconds."""
        try:
            with self._autocommit_engine.connect() as connection:
                rows = connection.execute(_UNFINISHED, {"most": MAX_COUNTED}).all()
        except SQLAlchemyError as error:
            log.warning("metrics without postgres", error=type(error).__name__)
            return None
        counts, oldest = {status.value: 0 for status in UNFINISHED}, 0.0
        for status, count, age in rows:
            counts[status] = count
            if status == Status.QUEUED:
                oldest = float(age)
        return counts, oldest
