"""The client's batches: `Client.batches` and `promptwire batch …`, against the API."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from api.client import Client, FileTokenStore, Login
from api.client.__main__ import run
from api.client.options import Exit
from shared.db.engine import Sessions
from shared.settings import Settings
from tests.support import batches
from tests.support.batches import jsonl, line
from tests.support.client import ApiUser
from worker.pipeline import Pipeline

Command = Callable[..., str]


@pytest.fixture
def promptwire(
    app_url: str, alice: ApiUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command line, and return what it prints."""
    monkeypatch.setenv("PROMPTWIRE_URL", app_url)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    FileTokenStore.for_server(app_url).write(Login(alice.username, **alice.tokens))

    def command(text: str, *, code: Exit = Exit.OK) -> str:
        monkeypatch.setattr("sys.argv", ["promptwire", *shlex.split(text)])
        with capture_logs():  # of the API, which runs in this process
            assert run() == code
        return "".join(capsys.readouterr())

    return command


@pytest.fixture
def finish(
    alice: ApiUser, settings: Settings, sessions: Sessions, autocommit_engine: Engine, worker: Pipeline
) -> Callable[[str], dict]:
    driver = batches.make_driver(settings, sessions, autocommit_engine)
    return lambda batch_id: batches.run(alice, {"id": batch_id}, driver, worker, sessions)


def test_a_file_is_submitted_waited_for_and_downloaded(promptwire: Command, finish) -> None:
    Path("lines.jsonl").write_bytes(jsonl([line(1), line(2)]))
    batch = json.loads(promptwire("batch submit lines.jsonl --metadata note=mine --json"))
    assert (batch["status"], batch["metadata"]) == ("validating", {"note": "mine"})
    assert f"{batch['id']}: validating" in promptwire(f"batch show {batch['id']}")
    promptwire(f"batch download {batch['id']} answers.jsonl", code=Exit.FAILED)
    finish(batch["id"])
    assert "completed, 2 of 2 lines completed, 0 failed" in promptwire(f"batch wait {batch['id']}")
    promptwire(f"batch download {batch['id']} answers.jsonl")
    found = [json.loads(each)["custom_id"] for each in Path("answers.jsonl").read_text().splitlines()]
    assert found == ["line-1", "line-2"]
    assert batch["id"] in promptwire("batch list")


def test_waiting_for_a_batch_that_failed_says_why_and_exits_with_1(promptwire: Command, finish) -> None:
    Path("lines.jsonl").write_bytes(jsonl([line(1), line(1)]))
    batch = json.loads(promptwire("batch submit lines.jsonl --json"))
    finish(batch["id"])
    assert "line 2: The custom_id line-1 is that of an earlier line." in promptwire(
        f"batch wait {batch['id']}", code=Exit.FAILED
    )


def test_a_batch_is_cancelled(promptwire: Command) -> None:
    Path("lines.jsonl").write_bytes(jsonl([line(1)]))
    batch = json.loads(promptwire("batch submit lines.jsonl --json"))
    assert "cancelling" in promptwire(f"batch cancel {batch['id']}")


def test_an_unknown_batch_is_refused_with_the_servers_message(promptwire: Command) -> None:
    assert "There is no such batch." in promptwire("batch show batch_999", code=Exit.REFUSED)


def test_a_missing_file_is_a_wrong_argument(promptwire: Command) -> None:
    promptwire("batch submit missing.jsonl", code=Exit.USAGE)


def test_a_programs_client_reads_pages_of_batches(app_url: str, alice: ApiUser, promptwire: Command) -> None:
    Path("lines.jsonl").write_bytes(jsonl([line(1)]))
    with Client(app_url, api_key=alice.create_key()["key"]) as client, capture_logs():
        file = client.batches.upload(Path("lines.jsonl"))
        made = [client.batches.create(file["id"])["id"] for _ in range(3)]
        assert [each["id"] for each in client.batches.list()] == made[::-1]
        assert [each["id"] for each in client.batches.list(limit=2)] == made[:0:-1]
