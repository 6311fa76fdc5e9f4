"""The worker's kombu transport: a Redis that does not answer, and malformed messages."""

from collections.abc import Callable, Iterator

import pytest
from kombu import Connection, Consumer, Message, Queue
from kombu.exceptions import OperationalError
from redis import Redis, TimeoutError

from shared.messaging.kombu_transport import Transport
from shared.messaging.queue import make_celery
from shared.settings import Settings
from tests.support.servers import Servers

QUEUE = Queue("test-transport")


class Inbox:
    """A consumer with a prefetch count of one."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.messages: list[Message] = []
        self._consumer = Consumer(connection, [QUEUE], on_message=self.messages.append, prefetch_count=1)
        self._consumer.consume()

    def send(self, body: str) -> None:
        self.connection.Producer().publish(body, routing_key=QUEUE.name)

    def receive(self) -> Message:
        while not self.messages:
            self.connection.drain_events(timeout=10)
        return self.messages.pop()


@pytest.fixture
def inbox(settings: Settings) -> Iterator[Inbox]:
    celery = make_celery(settings)
    with celery.connection_for_read(transport=Transport) as connection:
        yield Inbox(connection)
    celery.close()


@pytest.mark.parametrize("answer", [Message.ack, Message.requeue])
def test_a_message_whose_acknowledgement_fails_releases_the_prefetch_slot(
    servers: Servers, inbox: Inbox, answer: Callable[[Message], None]
) -> None:
    """kombu keeps the slot: a worker without a free slot never receives another message."""
    inbox.send("first")
    inbox.send("second")
    message = inbox.receive()
    with servers.valkey_process.stalled(), pytest.raises(TimeoutError):
        answer(message)
    assert inbox.receive().payload == "second"


def test_an_unreadable_message_releases_the_prefetch_slot(settings: Settings) -> None:
    """Celery's task strategies raise an exception if the body or the headers are broken."""
    celery = make_celery(settings)
    seen: list[object] = []

    def read(message: Message) -> None:
        seen.append(message.payload)
        if message.payload == "unreadable":
            raise KeyError("id")

    with celery.connection_for_read(transport=Transport) as connection:
        Consumer(connection, [QUEUE], on_message=read, prefetch_count=1).consume()
        for body in ("unreadable", "unreadable", "readable"):
            connection.Producer().publish(body, routing_key=QUEUE.name)
        while "readable" not in seen:
            connection.drain_events(timeout=10)
    celery.close()


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"[]", b"null", b"\xff", b'{"body": 1}', b'{"properties": {}}', b"[" * 100_000]
)
def test_malformed_queue_entries_are_skipped(settings: Settings, inbox: Inbox, garbage: bytes) -> None:
    with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        redis.lpush(QUEUE.name, garbage)
    inbox.send("after it")
    assert inbox.receive().payload == "after it"


def test_an_unreadable_unacknowledged_message_does_not_keep_others_from_being_restored(
    settings: Settings, inbox: Inbox
) -> None:
    inbox.send("unacknowledged")
    inbox.receive()
    qos = inbox.connection.default_channel.qos
    with Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True) as redis:
        redis.zadd(qos.unacked_index_key, dict.fromkeys(redis.zrange(qos.unacked_index_key, 0, -1), 1))
        redis.hset(qos.unacked_key, "forged", "nonsense")
        redis.zadd(qos.unacked_index_key, {"forged": 2})  # the newest is restored first
        qos.restore_visible(interval=1)
        assert redis.llen(QUEUE.name) == 1
        assert not redis.hexists(qos.unacked_key, "forged")
        assert redis.zcard(qos.unacked_index_key) == 0


def test_no_connection_is_made_to_a_server_that_refuses_writes(servers: Servers, settings: Settings) -> None:
    """Otherwise a worker would connect, fail and log without pause."""
    celery = make_celery(settings)
    with servers.redis_refusing("replica"), pytest.raises(OperationalError, match="Redis is a read-only replica"):
        celery.connection_for_read().ensure_connection(max_retries=1, interval_start=0)
    celery.connection_for_read().ensure_connection(max_retries=1).close()
    celery.close()


def test_keys_of_another_type_are_renamed_when_a_worker_connects(settings: Settings) -> None:
    """Otherwise no worker receives a message until an operator deletes the keys."""
    celery = make_celery(settings)
    with (
        Redis.from_url(settings.redis_url.get_secret_value()) as redis,
        celery.connection_for_read(transport=Transport) as connection,
    ):
        for key in (QUEUE.name, "unacked", "unacked_index"):
            redis.set(key, "forged")
        inbox = Inbox(connection)
        inbox.send("after it")
        inbox.receive().ack()
        assert redis.get(f"{QUEUE.name}:refused") == b"forged"
    celery.close()
