"""Batches: `POST /v1/batches` and what becomes of a file's lines."""

import pytest
from sqlalchemy import Engine, text

from shared.db.engine import Sessions
from shared.settings import Settings
from tests.support.batches import create, jsonl, line, make_driver, results, run, show, upload
from tests.support.client import ApiUser
from worker.batches.driver import BatchDriver
from worker.pipeline import Pipeline


@pytest.fixture
def driver(settings: Settings, sessions: Sessions, autocommit_engine: Engine) -> BatchDriver:
    return make_driver(settings, sessions, autocommit_engine)


def test_every_line_is_answered_once_in_the_output_file(
    alice: ApiUser, driver: BatchDriver, worker: Pipeline, sessions: Sessions
) -> None:
    batch = create(alice, [line(number) for number in range(1, 31)])
    assert (batch["status"], batch["request_counts"]) == ("validating", {"total": 0, "completed": 0, "failed": 0})
    ended = run(alice, batch, driver, worker, sessions)
    assert ended["status"] == "completed"
    assert ended["request_counts"] == {"total": 30, "completed": 30, "failed": 0}
    assert ended["error_file_id"] is None
    lines = results(alice, ended)
    assert [each["custom_id"] for each in lines] == [f"line-{number}" for number in range(1, 31)]
    first = lines[0]
    assert first["error"] is None
    assert first["response"]["status_code"] == 200
    assert "Question 1" in first["response"]["body"]["choices"][0]["message"]["content"]
