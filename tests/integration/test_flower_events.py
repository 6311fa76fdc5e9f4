"""When Flower says that it is ready: once it receives events."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from redis import Redis
from tornado.httputil import HTTPServerRequest, RequestStartLine
from tornado.ioloop import IOLoop

from shared.messaging.queue import connect_celery
from shared.settings import FlowerSettings, Settings
from tests.support.servers import MAX_WAIT_SECONDS
from worker.flower import ProtectedFlower, _Receiver


@pytest.fixture
def flower_settings(settings: Settings) -> FlowerSettings:
    return FlowerSettings(_env_file=None, redis_url=settings.redis_url, flower_password="a password")  # type: ignore[call-arg]


def test_a_receiver_says_that_it_receives_events_once_it_has_subscribed(
    flower_settings: FlowerSettings,
) -> None:
    redis = Redis.from_url(flower_settings.redis_url.get_secret_value())
    before = redis.pubsub_numpat()
    subscriptions: list[int] = []

    class Noting(threading.Event):
        def set(self) -> None:
            subscriptions.append(redis.pubsub_numpat())
            super().set()

    celery, is_receiving = connect_celery(flower_settings), Noting()
    with celery.connection() as connection:
        receiver = _Receiver(connection, is_receiving, handlers={}, app=celery)
        receiving = threading.Thread(target=receiver.capture)
        receiving.start()
        assert is_receiving.wait(MAX_WAIT_SECONDS)
        receiver.should_stop = True
        receiving.join(MAX_WAIT_SECONDS)
    redis.close()
    assert subscriptions == [before + 1]


@pytest.fixture
def flower(flower_settings: FlowerSettings) -> Iterator[ProtectedFlower]:
    loop = IOLoop(make_current=False)  # Tornado would make another one, to restore it, and not close it
    asyncio.set_event_loop(loop.asyncio_loop)  # type: ignore[attr-defined]
    yield ProtectedFlower(flower_settings)
    asyncio.set_event_loop(None)
    loop.close()


def test_the_health_check_succeeds_once_events_are_received(flower: ProtectedFlower) -> None:
    def handler() -> str:
        delegate = flower.find_handler(
            HTTPServerRequest(start_line=RequestStartLine("GET", "/healthcheck", "HTTP/1.0"))
        )
        return delegate.handler_class.__name__

    assert handler() == "_Starting"
    flower.events.has_begun.set()
    assert handler() == "Healthcheck"


def test_people_see_the_address_of_the_broker_without_its_password(flower: ProtectedFlower) -> None:
    flower._broker_url = "rediss://user:p%40ss@[::1]:6379/2?a=b"
    assert flower.broker_uri == "rediss://[::1]:6379/2?a=b"
