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


class QoS(virtual.QoS):  # type: ignore[misc]
    """Remembers in memory which messages are not acknowledged; kombu would store each in Redis, and delete it again.

    That would be two round trips for each message, one of them before its task starts. It would help nobody: a message
    of a worker that was killed came back after minutes, and the reaper wakes up a worker within seconds.
    """

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Release the prefetch slot of a message even if it cannot be sent again.

        A worker has one slot for each of its processes, so after as many failures it would never take a message again.
        """
        try:
            super().reject(delivery_tag, requeue)
        finally:
            self.ack(delivery_tag)

    def restore_unacked(self) -> list[Any]:
        """Send the messages again that a worker has not finished. kombu would write those into a file that fail."""
        super().restore_unacked()
        return []


class Channel(redis.Channel):  # type: ignore[misc]
    """Refuses messages that Celery did not send, instead of ending the worker or keeping a slot for them."""

    ack_emulation = False
    _client_of_pool: Redis | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.QoS = QoS

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
        self._rename_wrong_type(queue)
        size: int = super()._size(queue)
        return size

    def _rename_wrong_type(self, queue: str) -> None:
        """Rename a key of another type than kombu's: with it no worker could receive a message."""
        with self.conn_or_acquire() as client:
            if client.type(queue) not in (b"list", b"none"):
                client.rename(queue, f"{queue}:refused")
                log.error("key of another type renamed", key=queue, to=f"{queue}:refused")


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
