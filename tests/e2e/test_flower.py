"""Flower, as a process beside a worker; the API is in this process."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.services import make_services
from shared.settings import Settings
from tests.support import processes
from tests.support.client import ApiUser
from tests.support.servers import MAX_WAIT_SECONDS, Servers, wait_until

PASSWORD = "a password of Flower"


@pytest.fixture(scope="module")
def settings(servers: Servers) -> Iterator[Settings]:
    with servers.database() as name:
        yield servers.settings(name, generator="tests.support.providers:one_by_one")


@pytest.fixture(scope="module")
def alice(settings: Settings) -> Iterator[ApiUser]:
    """A user whose prompts a worker already answers."""
    services = make_services(settings)
    user = ApiUser(create_app(settings, services), "alice")
    command = [*processes.worker_command("worker", 1), "-E"]
    with processes.process(command, settings, **processes.WORKER_ENVIRONMENT):
        submit(user, "What is a tide?")
        yield user
    services.sessions.kw["bind"].dispose()


def submit(user: ApiUser, text: str) -> dict[str, Any]:
    """Submit a prompt. Returns it when it has ended."""
    prompt_id = user.submit(text)
    wait_until(lambda: user.show(prompt_id)["completed_at"] is not None, what="the end of a prompt")
    return user.show(prompt_id)


@pytest.fixture(scope="module")
def flower(settings: Settings, alice: ApiUser) -> Iterator[httpx.Client]:
    """Flower, as soon as its health check succeeds."""
    port = str(processes.free_port())
    url, environment = f"http://127.0.0.1:{port}", {"FLOWER_PORT": port, "FLOWER_PASSWORD": PASSWORD}
    with (
        processes.process(["worker.flower"], settings, **environment),
        httpx.Client(base_url=url, auth=("admin", PASSWORD), timeout=MAX_WAIT_SECONDS) as client,
    ):
        wait_until(lambda: is_healthy(client), what="Flower starting", pause=0.001)
        yield client


@pytest.fixture(scope="module")
def first(flower: httpx.Client, alice: ApiUser) -> int:
    """A prompt that is submitted as soon as Flower says that it is ready."""
    return int(submit(alice, "Why is the sea salty?")["id"])


def is_healthy(flower: httpx.Client) -> bool:
    try:
        return flower.get("/healthcheck").status_code == 200
    except httpx.TransportError:
        return False


def wait_for_task(flower: httpx.Client, text: str) -> dict[str, Any]:
    """The first task whose result or exception contains the text."""
    found: list[dict[str, Any]] = []

    def is_shown() -> bool:
        tasks = flower.get("/api/tasks").json().values()
        found[:] = [task for task in tasks if text in f"{task['result']} {task['exception']}"]
        return bool(found)

    wait_until(is_shown, what=f"a task with {text!r}")
    return found[0]


def test_a_prompt_right_after_the_start_is_shown_with_its_id(flower: httpx.Client, first: int) -> None:
    assert wait_for_task(flower, f"'completed': [{first}]")["state"] == "SUCCESS"


def test_the_task_of_a_failed_prompt_is_a_failure(flower: httpx.Client, alice: ApiUser, first: int) -> None:
    refused = submit(alice, "refuse")
    assert refused["status"] == "failed"
    assert wait_for_task(flower, f"Not completed: prompt {refused['id']};")["state"] == "FAILURE"


def test_the_broker_tab_shows_the_queues_and_no_password(flower: httpx.Client, settings: Settings) -> None:
    page = flower.get("/broker")
    assert page.status_code == 200
    assert set(re.findall(r'<tr id="([^"]+)">', page.text)) == {"prompts", "prompts.default"}
    address, password = settings.redis_url.get_secret_value(), settings.redis_url.get_secret_value().split("@")[0]
    assert f"redis://{address.rpartition('@')[2]}" in page.text
    assert password.rpartition(":")[2] not in page.text
