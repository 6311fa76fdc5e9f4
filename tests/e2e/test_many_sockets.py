"""Four hundred sockets on one API process. The benchmark has ten thousand (`make benchmark NAME=sockets`)."""

from collections.abc import Iterator

import httpx
import pytest

from shared.settings import Settings
from tests.support import people
from tests.support.many_sockets import Clients
from tests.support.servers import MAX_WAIT_SECONDS
from worker.pipeline import Pipeline

USERS, EACH = 100, 4


@pytest.fixture
def clients() -> Iterator[Clients]:
    running = Clients()
    yield running
    running.close()


def submit(http: httpx.Client, person: people.Person) -> int:
    body, headers = {"prompt_text": "What is a tide?", "websocket": True}, {"Authorization": f"Bearer {person.token}"}
    return http.post("/prompts/", json=body, headers=headers).raise_for_status().json()["id"]


def test_every_socket_receives_its_users_events_once(
    url: str, settings: Settings, worker: Pipeline, clients: Clients
) -> None:
    users = people.make(settings, USERS, "one-of-many")
    opened = clients.open(url, users * EACH, at_once=50)
    assert len(opened.each) == USERS * EACH
    for _ in range(2):
        with httpx.Client(base_url=url) as http:
            ids = [submit(http, person) for person in users]
        worker.process(len(ids))
        received = clients.received(USERS * EACH, timeout=MAX_WAIT_SECONDS)
        assert (len(received.times), received.sockets, received.most) == (USERS * EACH, USERS * EACH, 1)
        assert received.closed == 0
