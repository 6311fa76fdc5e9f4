"""Some hundred sockets on one API process. Ten thousand are the benchmark's (`make benchmark NAME=sockets`)."""

from collections.abc import Iterator

import httpx
import pytest

from shared.settings import Settings
from tests.support import people
from tests.support.many_sockets import Clients
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


def test_every_socket_is_told_of_its_users_prompts_once(
    url: str, settings: Settings, worker: Pipeline, clients: Clients
) -> None:
    everybody = people.make(settings, USERS, "one-of-many")
    opened = clients.open(url, everybody * EACH, at_once=50)
    assert len(opened.each) == USERS * EACH
    for _ in range(2):
        with httpx.Client(base_url=url) as http:
            ids = [submit(http, person) for person in everybody]
        worker.process(ids)
        received = clients.received(USERS * EACH, timeout=30)
        assert (len(received.times), received.sockets, received.most) == (USERS * EACH, USERS * EACH, 1)
        assert received.closed == 0
