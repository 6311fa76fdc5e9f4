"""What a worker's connection to Redis does when Redis does not answer, and with what is no message."""

from collections.abc import Callable, Iterator

import pytest
from kombu import Connection, Consumer, Message, Queue
from redis import Redis, TimeoutError

from shared.messaging.kombu_transport import Transport
from shared.messaging.queue import make_celery
from shared.settings import Settings
from tests.support.servers import Servers

QUEUE = Queue("test-transport")


class Inbox:
    """A consumer with a place for one message."""

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
def test_a_message_that_cannot_be_answered_gives_its_place_free(
    servers: Servers, inbox: Inbox, answer: Callable[[Message], None]
) -> None:
    """kombu keeps the place, and a worker that has no more takes nothing for ever after."""
    inbox.send("first")
    inbox.send("second")
    message = inbox.receive()
    with servers.valkey_process.stalled(), pytest.raises(TimeoutError):
        answer(message)
    assert inbox.receive().payload == "second"


def test_a_message_that_nobody_can_read_gives_its_place_free(settings: Settings) -> None:
    """Celery's strategies raise on a message with a broken body or headers."""
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


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"null", b"\xff", b'{"body": 1}', b'{"properties": {}}'])
def test_what_is_no_message_is_passed_over(settings: Settings, inbox: Inbox, garbage: bytes) -> None:
    with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        redis.lpush(QUEUE.name, garbage)
    inbox.send("after it")
    assert inbox.receive().payload == "after it"
