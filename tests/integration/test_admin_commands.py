"""The commands for admins: `promptwire admin …`, against the API."""

import json
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from api.client import FileTokenStore, Login
from api.client.__main__ import run
from api.client.options import Exit
from shared.db.engine import Sessions
from shared.messaging.announcements import Announcer
from shared.messaging.redis import make_redis
from shared.settings import Settings
from tests.support.client import ApiUser
from tests.support.failed_prompts import add_failed
from tests.support.lifecycle import RecordingQueue
from tests.support.servers import MAX_WAIT_SECONDS
from tests.support.usage import add_key
from worker.maintenance.presence import PresenceWriter
from worker.operations import OperationDriver

Command = Callable[..., str]


@pytest.fixture
def promptwire(
    app_url: str, admin: ApiUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command line as the admin, and return what it prints: first to stdout, then to stderr."""
    monkeypatch.setenv("PROMPTWIRE_URL", app_url)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    FileTokenStore.for_server(app_url).write(Login(admin.username, **admin.tokens))

    def command(line: str, *, code: Exit = Exit.OK) -> str:
        monkeypatch.setattr("sys.argv", ["promptwire", "admin", *shlex.split(line)])
        capsys.readouterr()
        with capture_logs():  # of the API, which runs in this process
            assert run() == code
        return "".join(capsys.readouterr())

    return command


@pytest.fixture
def _driven(settings: Settings, sessions: Sessions) -> Iterator[None]:
    """A driver that carries out operations."""
    driver = OperationDriver(settings, sessions, RecordingQueue(), Announcer(make_redis(settings)))
    stop = threading.Event()

    def drive() -> None:
        while not stop.wait(0.02):
            driver.round()

    thread = threading.Thread(target=drive)
    thread.start()
    yield
    stop.set()
    thread.join(MAX_WAIT_SECONDS)


def test_the_overview_shows_the_queue_by_model_and_user(promptwire: Command, admin: ApiUser, alice: ApiUser) -> None:
    alice.submit()
    promptwire("pause default --reason Maintenance")
    _, model, *_, user = promptwire("overview").splitlines()
    assert model.split()[:2] == ["1", "0"]
    assert model.endswith("paused by root: Maintenance  default")
    assert user.split()[-2:] == ["default", "alice"]
    assert json.loads(promptwire("overview --json"))["models"][0]["queued"] == 1
    assert promptwire("resume default") == "default is resumed.\n"
    assert "available" in promptwire("models")


def test_running_prompts_failures_and_workers_are_tables(
    promptwire: Command, alice: ApiUser, sessions: Sessions
) -> None:
    running = alice.submit()
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET status = 'processing', attempt = 1, turn = NULL"))
    add_failed(sessions, alice.id, 3, error="The provider\nfailed.")
    PresenceWriter(sessions, "threads", 200, ["default"]).round()
    assert promptwire("running").splitlines()[1].split()[0::7] == [str(running), "alice"]
    assert promptwire("failures").splitlines()[1].endswith("default  The provider failed.")
    assert "0 of 200 threads" in promptwire("workers")


@pytest.mark.usefixtures("_driven")
def test_prompts_are_retried_by_filter_after_a_confirmation(
    promptwire: Command, alice: ApiUser, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = add_failed(sessions, alice.id, 3)
    assert promptwire("retry --user ALICE --dry-run") == "3 prompts of 1 user to retry: 3 of default.\n"
    monkeypatch.setattr("click.confirm", lambda question, **_: question)
    shown = promptwire("retry --error 'The provider' --id 1 --id 2 --id 3 --since 2020-01-01T00:00:00Z")
    assert shown == "Operation 1 is completed: 3 of 3 prompts retried.\n3 prompts of 1 user to retry: 3 of default.\n"
    assert [alice.show(each)["status"] for each in ids] == ["queued"] * 3
    assert promptwire("undo 1") == "Operation 1 is undone: 3 of 3 prompts retried, 3 undone.\n"
    assert promptwire("operation 1 --wait") == "Operation 1 is undone: 3 of 3 prompts retried, 3 undone.\n"
    assert "undone  3 of 3   root" in promptwire("operations")
    assert promptwire("retry --status cancelled --yes") == "There are no prompts to retry.\n"


@pytest.mark.usefixtures("_driven")
def test_prompts_are_cancelled_by_filter(promptwire: Command, alice: ApiUser) -> None:
    prompt_id = alice.submit()
    assert "1 of 1 prompts cancelled" in promptwire("cancel --model default --yes")
    assert alice.show(prompt_id)["status"] == "cancelled"


def test_an_operation_that_is_not_waited_for_is_shown_as_it_is(
    promptwire: Command, alice: ApiUser, sessions: Sessions
) -> None:
    add_failed(sessions, alice.id, 1)
    shown = json.loads(promptwire("retry --yes --no-wait --json").splitlines()[0])
    assert (shown["id"], shown["status"], shown["total"]) == (1, "running", 1)


def test_users_keys_usage_and_the_audit_trail_are_tables(
    promptwire: Command, alice: ApiUser, sessions: Sessions
) -> None:
    key_id = add_key(sessions, alice.id)
    assert [line.split()[1::8] for line in promptwire("users").splitlines()[1:]] == [["user"], ["admin"]]
    assert promptwire("users --name ALICE").splitlines()[1].endswith("alice")
    assert "pw_12345678  live" in promptwire("keys --user alice")
    promptwire(f"keys --revoke {key_id}")
    assert "revoked" in promptwire("keys")
    assert promptwire("usage --by user").startswith("USER")
    assert "key.revoked" in promptwire("audit --user alice")
    assert "There is no user 'nobody'" in promptwire("audit --user nobody", code=Exit.USAGE)


def test_users_who_are_not_admins_are_refused(promptwire: Command, alice: ApiUser, app_url: str) -> None:
    FileTokenStore.for_server(app_url).write(Login(alice.username, **alice.tokens))
    assert "needs the scope admin:read" in promptwire("overview", code=Exit.REFUSED)
