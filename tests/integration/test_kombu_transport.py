"""The worker's kombu transport: a Redis that does not answer, and malformed messages."""

from collections.abc import Iterator

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


def test_a_message_that_cannot_be_sent_again_releases_the_prefetch_slot(servers: Servers, inbox: Inbox) -> None:
    """kombu keeps the slot: a worker without a free slot never receives another message."""
    inbox.send("first")
    inbox.send("second")
    message = inbox.receive()
    with servers.valkey_process.stalled(), pytest.raises(TimeoutError):
        message.requeue()
    assert inbox.receive().payload == "second"


def test_messages_are_taken_and_acknowledged_without_redis(servers: Servers, inbox: Inbox) -> None:
    """Only to receive them takes a round trip: kombu would store each unacknowledged message in Redis."""
    inbox.send("first")
    inbox.send("second")
    message = inbox.receive()
    with servers.valkey_process.stalled():
        message.ack()
    assert inbox.receive().payload == "second"
    with Redis.from_url(servers.redis_url) as redis:
        assert not redis.exists("unacked", "unacked_index")


@pytest.mark.parametrize("how", ["requeued", "left by a worker that stops"])
def test_a_message_comes_again(settings: Settings, inbox: Inbox, how: str) -> None:
    inbox.send("again")
    message = inbox.receive()
    if how == "requeued":
        message.requeue()
        assert inbox.receive().payload == "again"
    else:
        inbox.connection.close()
        celery = make_celery(settings)
        with celery.connection_for_read(transport=Transport) as connection:
            assert Inbox(connection).receive().payload == "again"
        celery.close()


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


def test_no_connection_is_made_to_a_server_that_refuses_writes(servers: Servers, settings: Settings) -> None:
    """Otherwise a worker would connect, fail and log without pause."""
    celery = make_celery(settings)
    with servers.redis_refusing("replica"), pytest.raises(OperationalError, match="Redis is a read-only replica"):
        celery.connection_for_read().ensure_connection(max_retries=1, interval_start=0)
    celery.connection_for_read().ensure_connection(max_retries=1).close()
    celery.close()


def test_a_key_of_another_type_is_renamed_when_a_worker_connects(settings: Settings) -> None:
    """Otherwise no worker receives a message until an operator deletes the key."""
    celery = make_celery(settings)
    with (
        Redis.from_url(settings.redis_url.get_secret_value()) as redis,
        celery.connection_for_read(transport=Transport) as connection,
    ):
        redis.set(QUEUE.name, "forged")
        inbox = Inbox(connection)
        inbox.send("after it")
        inbox.receive().ack()
        assert redis.get(f"{QUEUE.name}:refused") == b"forged"
    celery.close()
