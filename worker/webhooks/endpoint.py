"""Delivering to one endpoint: one event at a time, in the order of `seq`.

After a failure the endpoint is paused, and nothing is sent to it, so the order is kept. An endpoint that refuses an
event a second time may refuse only this one, so the next event is sent as a probe. If the endpoint accepts that,
the refused event is tried again on its own, and the others go on. If not, the endpoint is down, and all events wait.
"""

import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import NamedTuple

from shared.db.models import DeliveryStatus
from shared.telemetry import metrics
from shared.webhooks import schedule, signing
from shared.webhooks.deliveries import FIRST_DELIVERIES, MAX_DELIVERIES, Batch, Delivery
from shared.webhooks.events import Event
from shared.webhooks.results import GONE, EndpointState, Result
from worker.webhooks.byte_budget import ByteBudget
from worker.webhooks.network import CheckedBackend
from worker.webhooks.receiver import Receiver, Response
from worker.webhooks.recorder import Recorder

#: A batch is not sent for longer than this, because URL, secrets and prompts may change. With two requests that take
#: their whole time after that, it is still shorter than the lease.
BATCH_SECONDS = 1.0
#: How many bytes a batch may take: two events with the longest answer and prompt.
MAX_BATCH_BYTES = 4 * 2**20
#: After this time other endpoints get this one's place.
TURN_SECONDS = 20.0


@dataclass(frozen=True)
class Tools:
    """What the endpoints of a host share."""

    read: Callable[[int, int], Awaitable[Batch | None]]  #: a batch, of at most this many
    recorder: Recorder
    memory: ByteBudget
    backend: CheckedBackend
    tls: ssl.SSLContext
    timeout: float  #: seconds for a request
    is_stopping: Callable[[], bool]


class Endpoint:
    """An endpoint that this host has leased."""

    def __init__(self, webhook_id: int, tools: Tools) -> None:
        self._id = webhook_id
        self._tools = tools
        self._limit = FIRST_DELIVERIES
        self._receiver: Receiver | None = None
        self._state = EndpointState()
        self._failures = 0
        #: An attempt that failed for the second time or more. The next event is the probe.
        self._refused: _Attempt | None = None

    async def run(self) -> None:
        """Deliver what is pending, then release the endpoint. If this is cancelled, an event may be sent twice."""
        end = time.monotonic() + TURN_SECONDS
        try:
            while await self._send_next() and not self._tools.is_stopping() and time.monotonic() < end:
                self._tools.recorder.put_state(self._id, self._state)
                await self._tools.recorder.flushed()
        finally:
            try:
                if self._receiver is not None:
                    await self._receiver.close()
            finally:  # last, because this host may lease the endpoint again from now on
                self._tools.recorder.put_state(self._id, self._state._replace(is_released=True))

    async def _send_next(self) -> bool:
        """Read and send a batch. Returns whether there is more to send now."""
        async with self._tools.memory.reserve(MAX_BATCH_BYTES) as keep:
            batch = await self._tools.read(self._id, self._limit)
            self._limit = MAX_DELIVERIES
            if batch is None:
                return False
            keep(sum(len(delivery.event.body) for delivery in batch.deliveries if delivery.event))
            self._failures = batch.failures
            return await self._send(batch)

    async def _send(self, batch: Batch) -> bool:
        """Send a batch. Returns whether there is more to send now."""
        clock = _Clock(batch.read_at)
        try:
            for delivery in batch.deliveries:
                is_over = clock.seconds > BATCH_SECONDS and self._refused is None  # a probe is sent in any case
                if is_over or self._tools.is_stopping():
                    return True
                if not await self._deliver(batch, delivery, clock):
                    return False
            return batch.has_more and self._refused is None
        finally:
            if self._refused is not None:  # no other event has shown that the endpoint is up
                self._pause(self._refused)
                self._refused = None

    async def _deliver(self, batch: Batch, delivery: Delivery, clock: "_Clock") -> bool:
        """Send an event. Returns whether to send the next one."""
        at = clock.now
        if delivery.event is None:
            error = "The prompt was deleted, or its event is no longer kept."
            self._put(Result(self._id, delivery.id, DeliveryStatus.FAILED, at, 0.0, error=error), "given_up")
            return True
        response = await self._post(batch, delivery.event, at)
        attempt = _Attempt(self._id, delivery, response, at)
        if response.is_success:
            self._succeed(attempt)
            return True
        if response.status == HTTPStatus.GONE:
            self._state = EndpointState(self._failures + 1, disabled_reason=GONE)
            self._put(attempt.result(DeliveryStatus.FAILED), "given_up")
            return False
        return self._fail(attempt)

    async def _post(self, batch: Batch, event: Event, at: datetime) -> Response:
        if self._receiver is None or self._receiver.url != batch.url:
            if self._receiver is not None:
                await self._receiver.close()
            self._receiver = Receiver(batch.url, self._tools.backend, self._tools.tls, self._tools.timeout)
        return await self._receiver.post(event.body, signing.sign(event.message_id, at, event.body, batch.keys))

    def _succeed(self, attempt: "_Attempt") -> None:
        if self._refused is not None:
            self._set_aside(self._refused)
            self._refused = None
        if self._failures:
            self._failures, self._state = 0, EndpointState(0)
        self._put(attempt.result(DeliveryStatus.DELIVERED), "delivered")

    def _fail(self, attempt: "_Attempt") -> bool:
        """Decide what a failure means. Returns whether to send the next event."""
        if self._refused is not None:  # this was the probe
            self._pause(self._refused, attempt.response.retry_after)
            self._refused = None
            self._put_failed(attempt)
            return False
        if not attempt.may_concern_only_this:
            self._pause(attempt, attempt.response.retry_after)
            return False
        if self._failures == 0:  # it has taken other events since it first refused this one
            self._set_aside(attempt)
        else:
            self._refused = attempt
        return True

    def _pause(self, attempt: "_Attempt", retry_after: float | None = None) -> None:
        """Send nothing to the endpoint for a while."""
        self._failures += 1
        pause = schedule.wait_seconds(self._failures, retry_after)
        self._state = self._state._replace(failures=self._failures, pause_seconds=pause)
        self._put_failed(attempt)

    def _set_aside(self, attempt: "_Attempt") -> None:
        """Let the event wait, and the others pass it."""
        self._put_failed(attempt, schedule.wait_seconds(attempt.number))

    def _put_failed(self, attempt: "_Attempt", wait_seconds: float = 0.0) -> None:
        if attempt.number >= schedule.MAX_ATTEMPTS:
            self._put(attempt.result(DeliveryStatus.FAILED), "given_up")
            return
        outcome = "unreachable" if attempt.response.status is None else "refused"
        self._put(attempt.result(DeliveryStatus.PENDING, wait_seconds), outcome)

    def _put(self, result: Result, outcome: str) -> None:
        self._tools.recorder.put(result)
        metrics.webhook_deliveries[outcome].inc()
        if result.seconds:
            metrics.webhook_durations.observe(result.seconds)


class _Clock:
    """The database's clock, as it was when a batch was read, and what has passed since."""

    def __init__(self, read_at: datetime) -> None:
        self._read_at = read_at
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def now(self) -> datetime:
        return self._read_at + timedelta(seconds=self.seconds)


class _Attempt(NamedTuple):
    """A request, and its response."""

    webhook_id: int
    delivery: Delivery
    response: Response
    at: datetime

    @property
    def number(self) -> int:
        return self.delivery.attempts + 1

    @property
    def may_concern_only_this(self) -> bool:
        """Whether the endpoint works, but has refused this event again. With `Retry-After` it asks for a pause."""
        return self.response.status is not None and self.response.retry_after is None and self.delivery.attempts > 0

    def result(self, status: DeliveryStatus, wait_seconds: float = 0.0) -> Result:
        response = self.response
        return Result(
            self.webhook_id,
            self.delivery.id,
            status,
            self.at,
            response.seconds,
            response.status,
            response.error,
            wait_seconds,
        )
