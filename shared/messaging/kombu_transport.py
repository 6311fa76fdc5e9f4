"""kombu's transport for Redis, with fixes for faults that stop a worker from taking messages, and for a cost."""

from collections.abc import Callable
from typing import Any

import structlog
from kombu.transport import redis, virtual
from redis import Redis

from shared.messaging.redis import WriteRefusedError, write_problem

log = structlog.get_logger(__name__)

#: What kombu raises when it reads something that is not a message. Errors of Redis itself are of other types.
_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


class QoS(redis.QoS):  # type: ignore[misc]
    """Releases the prefetch slot of a message even if its acknowledgement fails.

    kombu releases it only after Redis has answered. A worker has one slot for each of its processes, so after as many
    failed acknowledgements it would never take a message again. The message is redelivered after the visibility
    timeout, and its task finds nothing to claim.
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

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Drop an unacknowledged message that cannot be read; kombu would restore none of those after it."""
        try:
            super().restore_by_tag(tag, client, leftmost)
        except _MALFORMED as error:
            _log_refusal(error)
            with self.channel.conn_or_acquire(client) as connection:
                connection.zrem(self.unacked_index_key, tag)
                connection.hdel(self.unacked_key, tag)


class Channel(redis.Channel):  # type: ignore[misc]
    """Refuses messages that Celery did not send, instead of ending the worker or keeping a slot for them."""

    QoS = QoS
    _client_of_pool: Redis | None = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        """Reuse one client for all commands; kombu makes one for each, which takes longer than the command."""
        if asynchronous:
            return super()._create_client(asynchronous)
        if self._client_of_pool is None or self._client_of_pool.connection_pool is not self.pool:
            self._client_of_pool = self.Client(connection_pool=self.pool)
        return self._client_of_pool

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except _MALFORMED as error:
            _log_refusal(error)  # it is already removed from the list

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

    def _size(self, queue: str) -> int:
        """How many messages wait. kombu calls this first when it declares a queue, on each connection."""
        self._rename_wrong_types(queue)
        size: int = super()._size(queue)
        return size

    def _rename_wrong_types(self, queue: str) -> None:
        """Rename keys of another type than kombu's: with them no worker could receive or restore a message."""
        kinds = {queue: b"list", self.unacked_key: b"hash", self.unacked_index_key: b"zset"}
        with self.conn_or_acquire() as client:
            for key, kind in kinds.items():
                if client.type(key) not in (kind, b"none"):
                    client.rename(key, f"{key}:refused")
                    log.error("key of another type renamed", key=key, to=f"{key}:refused")


def _log_refusal(error: Exception) -> None:
    log.error("message refused: not sent by Celery", error=type(error).__name__)


class Transport(redis.Transport):  # type: ignore[misc]
    """Refuses to connect to a server that accepts no writes, because nothing could be sent or acknowledged there.

    kombu then tries again at longer and longer intervals, as with a server that does not answer. Otherwise a worker
    would connect, fail, and log tracebacks six times a second while Redis is a read-only replica.
    """

    Channel = Channel

    def establish_connection(self) -> Any:
        established = super().establish_connection()
        problem = write_problem(self._avail_channels[-1].client)
        if problem is not None:
            self._avail_channels.pop().close()
            raise WriteRefusedError(problem)
        return established
