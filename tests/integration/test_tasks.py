"""The Celery tasks: what they accept, and what they report to Flower."""

import dataclasses
from collections.abc import Callable

import pytest
from celery import Celery
from sqlalchemy import text
from structlog.testing import capture_logs

from shared.db.engine import Sessions
from shared.db.models import DEFAULT_ROUTE
from shared.errors import ProviderError
from shared.messaging.queue import ANSWER_PROMPTS, PROCESS_PROMPTS
from tests.support.client import ApiUser
from tests.support.providers import Commanded, Script
from tests.support.servers import Servers, wait_until
from worker.pipeline import Pipeline
from worker.services import Services
from worker.tasks import AttemptFailedError, DatabaseUnavailableError, register

Task = Callable[..., object]


def task(name: str, pipeline: Pipeline) -> Task:
    celery = Celery(set_as_current=False)
    register(celery, lambda: Services({pipeline.route: pipeline}, None, None, None, None))  # type: ignore[arg-type]
    return celery.tasks[name]


def test_a_tasks_result_names_the_prompts_that_it_answered(alice: ApiUser, worker: Pipeline) -> None:
    ids = [alice.submit(f"{i}") for i in range(3)]
    result = task(ANSWER_PROMPTS, worker)(DEFAULT_ROUTE, 10)
    assert result == {"completed": ids, "not_completed": []}


def test_a_task_fails_if_its_only_prompt_does(alice: ApiUser, worker: Pipeline) -> None:
    prompt_id = alice.submit()
    failing = dataclasses.replace(worker, generator=Script(ProviderError("no")))
    with pytest.raises(AttemptFailedError, match=f"^Not completed: prompt {prompt_id}; completed: none.$"):
        task(ANSWER_PROMPTS, failing)(DEFAULT_ROUTE, 1)


def test_a_task_fails_if_one_of_its_prompts_does_and_names_them(alice: ApiUser, worker: Pipeline) -> None:
    first, refused, last = (alice.submit(prompt) for prompt in ("one", "refuse", "two"))
    with pytest.raises(AttemptFailedError) as failed:
        task(ANSWER_PROMPTS, dataclasses.replace(worker, generator=Commanded()))(DEFAULT_ROUTE, 10)
    assert str(failed.value) == f"Not completed: prompt {refused}; completed: prompts {first}, {last}."
    assert [alice.show(prompt_id)["status"] for prompt_id in (first, refused, last)] == [
        "completed",
        "failed",
        "completed",
    ]


@pytest.mark.parametrize(("name", "arguments"), [(ANSWER_PROMPTS, (DEFAULT_ROUTE, 1)), (PROCESS_PROMPTS, ([1],))])
def test_a_task_that_finds_postgres_read_only_says_so_in_a_line(
    servers: Servers, alice: ApiUser, worker: Pipeline, name: str, arguments: tuple
) -> None:
    prompt_id = alice.submit()
    with servers.read_only(), capture_logs() as logs, pytest.raises(DatabaseUnavailableError):
        task(name, worker)(*arguments)
    assert [line["event"] for line in logs] == ["postgres unavailable, task not done"]
    assert "traceback" not in str(logs).lower()
    wait_until(lambda: alice.get(f"/prompts/{prompt_id}/").status_code == 200, what="recovering")
    assert (alice.show(prompt_id)["status"], alice.show(prompt_id)["attempt"]) == ("queued", 0)


def test_a_surplus_message_succeeds_without_a_prompt(worker: Pipeline) -> None:
    assert task(ANSWER_PROMPTS, worker)(DEFAULT_ROUTE, 7) == {"completed": [], "not_completed": []}


@pytest.mark.parametrize(
    "arguments", [("other", 1), (DEFAULT_ROUTE, 0), (DEFAULT_ROUTE, -1), (DEFAULT_ROUTE, True), (DEFAULT_ROUTE, "1")]
)
def test_a_message_with_wrong_arguments_is_refused(alice: ApiUser, worker: Pipeline, arguments: tuple) -> None:
    prompt_id = alice.submit()
    assert task(ANSWER_PROMPTS, worker)(*arguments) is None
    assert alice.show(prompt_id)["status"] == "queued"


def test_messages_and_prompts_of_the_release_before_are_answered(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    ids = [alice.submit(f"{i}") for i in range(3)]
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET turn = NULL"))
    task(PROCESS_PROMPTS, worker)(ids)
    assert [alice.show(prompt_id)["status"] for prompt_id in ids] == ["completed"] * 3
