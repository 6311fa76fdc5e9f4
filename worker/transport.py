"""kombu's transport for Redis, with two faults mended that stop a worker from taking messages."""

from typing import Any

import structlog
from kombu.transport import redis, virtual

log = structlog.get_logger(__name__)


class QoS(redis.QoS):  # type: ignore[misc]
    """Gives a message's place free even if Redis does not hear that it is done.

    kombu gives it free only after Redis has answered. A worker has a place for each of its processes, so after as many
    acknowledgements that failed it took nothing any more, for ever. The message comes again after the visibility
    timeout, and is dropped.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)
        finally:
            virtual.QoS.ack(self, delivery_tag)


class Channel(redis.Channel):  # type: ignore[misc]
    """Refuses what is no message instead of ending the worker."""

    QoS = QoS

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # It is off the list already. Redis's own errors are none of these.
            log.error("message refused: not made by Celery", error=type(error).__name__)


class Transport(redis.Transport):  # type: ignore[misc]
    Channel = Channel
