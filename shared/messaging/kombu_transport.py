"""kombu's transport for Redis, with what stops a worker from taking messages mended, and what costs most left out."""

from collections.abc import Callable
from typing import Any

import structlog
from kombu.transport import redis, virtual
from redis import Redis

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
    """Refuses what Celery did not make, instead of ending the worker or keeping a place for it."""

    QoS = QoS
    _kept: Redis | None = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        """One client for all commands; kombu makes another one for each, which takes longer than the command."""
        if asynchronous:
            return super()._create_client(asynchronous)
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = self.Client(connection_pool=self.pool)
        return self._kept

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # It is no message at all, and off the list already. Redis's own errors are none of these.
            _log_refusal(error)

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **options: Any
    ) -> Any:
        def refusing(message: Any) -> None:
            try:
                callback(message)
            except self.connection_errors:
                raise
            except Exception as error:
                _log_refusal(error)
                if not message.acknowledged:
                    message.reject()

        return super().basic_consume(queue, no_ack, refusing, consumer_tag, **options)


def _log_refusal(error: Exception) -> None:
    log.error("message refused: not made by Celery", error=type(error).__name__)


class Transport(redis.Transport):  # type: ignore[misc]
    Channel = Channel
