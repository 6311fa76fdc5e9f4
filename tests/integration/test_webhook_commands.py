"""The client's webhooks: `Client.webhooks` and `promptwire webhooks …`, against the API."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from api.client import Client, FileTokenStore, Login, ProblemError
from api.client.__main__ import run
from api.client.options import Exit
from shared.db.engine import Sessions
from tests.support.client import ApiUser
from worker.pipeline import Pipeline

URL = "https://hooks.example/promptwire"
Command = Callable[..., str]


@pytest.fixture
def client(app_url: str, alice: ApiUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client whose login the commands use, too."""
    monkeypatch.setenv("PROMPTWIRE_URL", app_url)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    store = FileTokenStore.for_server(app_url)
    store.write(Login(alice.username, **alice.tokens))
    with Client(app_url, token_store=store) as made:
        yield made


@pytest.fixture
def promptwire(client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line, and return what it prints."""

    def command(line: str, *, code: Exit = Exit.OK) -> str:
        monkeypatch.setattr("sys.argv", ["promptwire", *shlex.split(line)])
        with capture_logs():  # of the API, which runs in this process
            assert run() == code
        return "".join(capsys.readouterr())

    return command


@pytest.fixture
def end_all(sessions: Sessions) -> Callable[[], None]:
    """End what is pending, as failed by one attempt that was answered with 500."""

    def end() -> None:
        with sessions.begin() as session:
            session.execute(
                text(
                    "INSERT INTO webhook_attempts (delivery_id, number, status_code, seconds) "
                    "SELECT id, 1, 500, 0.5 FROM webhook_deliveries WHERE status = 'pending'"
                )
            )
            session.execute(text("UPDATE webhook_deliveries SET status = 'failed', ended_at = now()"))

    return end


def test_the_client_has_a_method_for_each_call(
    client: Client, alice: ApiUser, worker: Pipeline, end_all: Callable[[], None]
) -> None:
    created = client.webhooks.create(URL, events=["prompt.completed"], description="The shop")
    webhook = created["id"]
    assert created.pop("secret").startswith("whsec_")
    assert client.webhooks.show(webhook) == created
    assert client.webhooks.list() == [created]
    assert client.webhooks.update(webhook, events=None, disabled=False)["events"] is None
    assert client.webhooks.rotate(webhook)["secret"].startswith("whsec_")
    test = client.webhooks.test(webhook)
    for _ in range(3):
        alice.submit()
        worker.process(1)
    assert [each["seq"] for each in client.webhooks.deliveries(webhook)] == [3, 2, 1, None]
    assert len(list(client.webhooks.deliveries(webhook, limit=2))) == 2
    end_all()
    assert client.webhooks.replay(webhook, test["id"])["status"] == "pending"
    assert [each["id"] for each in client.webhooks.deliveries(webhook, status="pending")] == [test["id"]]
    assert client.webhooks.recover(webhook, since=1) == 2
    client.webhooks.delete(webhook)
    with pytest.raises(ProblemError, match="There is no such webhook"):
        client.webhooks.show(webhook)


def test_the_command_line_has_a_command_for_each_call(
    promptwire: Command, alice: ApiUser, worker: Pipeline, end_all: Callable[[], None]
) -> None:
    created = promptwire(f"webhooks create {URL} --event prompt.failed --description 'The shop'")
    assert "Webhook 1 was created. Its secret, which is not shown again:\nwhsec_" in created
    assert promptwire("webhooks list").splitlines() == [
        "ID  STATUS   EVENTS         URL",
        f"1   enabled  prompt.failed  {URL}",
    ]
    assert "The shop" in promptwire("webhooks show 1")
    assert "events        all" in promptwire("webhooks update 1 --all-events")
    assert "status        disabled\nreason        You have disabled it." in promptwire("webhooks update 1 --disable")
    promptwire("webhooks update 1 --enable --endpoint https://other.example/ --description ''")
    assert "https://other.example/" in promptwire("webhooks list")
    assert "whsec_" in promptwire("webhooks rotate 1")
    alice.submit()
    worker.process(1)
    assert "prompt.completed  pending" in promptwire("webhooks deliveries 1")
    end_all()
    (row,) = promptwire("webhooks deliveries 1 --status failed --all").splitlines()[1:]
    assert row.split()[:4] == ["1", "1", "prompt.completed", "failed"]
    assert row.split()[-2:] == ["1", "500"]
    assert "Delivery 1 will be sent again." in promptwire("webhooks replay 1 1")
    assert "pending" in promptwire("webhooks replay 1 1", code=Exit.REFUSED)
    assert "1 event will be sent again." in promptwire("webhooks recover 1 --since 0")
    assert "will be sent. `webhooks deliveries 1` shows" in promptwire("webhooks test 1")
    assert "Webhook 1 was deleted." in promptwire("webhooks delete 1")
    assert "There is no such webhook." in promptwire("webhooks show 1", code=Exit.REFUSED)


def test_with_json_each_command_prints_resources_as_lines(
    promptwire: Command, alice: ApiUser, end_all: Callable[[], None]
) -> None:
    def resources(line: str) -> list[dict]:
        return [json.loads(each) for each in promptwire(f"webhooks {line} --json").splitlines()]

    (created,) = resources(f"create {URL}")
    assert created.pop("secret").startswith("whsec_")
    assert resources("list") == resources("show 1") == resources("update 1") == [created]
    assert resources("rotate 1")[0]["secret"].startswith("whsec_")
    (delivery,) = resources("test 1")
    assert resources("deliveries 1") == [delivery]
    end_all()
    assert resources(f"replay 1 {delivery['id']}")[0]["status"] == "pending"
    assert resources("recover 1 --since 0") == [{"deliveries": 0}]


@pytest.mark.parametrize(
    "line",
    [
        "webhooks create",
        f"webhooks create {URL} --event prompt.started",
        "webhooks recover 1",
        "webhooks recover 1 --since -1",
        "webhooks replay 1",
        "webhooks show 0",
    ],
)
def test_wrong_arguments_are_a_usage_error(promptwire: Command, line: str) -> None:
    promptwire(line, code=Exit.USAGE)
