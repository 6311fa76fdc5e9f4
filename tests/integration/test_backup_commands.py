"""`make backup` and `make restore`, and the commands for Docker Compose that the documentation has."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from infra.local.__main__ import main
from infra.local.data_folder import DataFolder, write_private
from infra.local.postgres_tools import PostgresTools, read_revision
from infra.local.servers import postgres_bin
from shared.db import migrations
from shared.db.models import Status
from shared.db.restored import GAP
from shared.settings import Settings
from tests.support.backups import rows
from tests.support.client import ApiUser, assert_problem
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, Servers, environment_of
from tests.support.webhook_calls import create as create_webhook


class TestCommands:
    """`make backup` and `make restore`, in this process, on a data folder of their own."""

    @pytest.fixture
    def command(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> Iterator[Callable[..., str]]:
        """Run a command, which must end with this code. Returns what it printed."""
        environment = dict(os.environ)
        monkeypatch.chdir(tmp_path)  # no .env

        def run(*arguments: object, code: int = 0, **variables: str) -> str:
            os.environ.clear()
            os.environ.update(environment | {"DATA_DIR": str(tmp_path / "data")} | variables)
            assert main([*map(str, arguments)]) == code
            printed = capsys.readouterr()
            return (printed.err if code else printed.out).strip()

        yield run
        os.environ.clear()
        os.environ.update(environment)

    def test_a_stopped_stack_is_restored_from_a_backup_and_backed_up(
        self, command: Callable[..., str], backup: Callable[[], Path], alice: ApiUser, tmp_path: Path
    ) -> None:
        file, data = backup(), tmp_path / "data"
        assert command("backup", code=1) == f"{data} has no database: there is nothing to back up."
        assert command("restore", file).endswith("Restored 1 user and 0 prompts. All users log in again.")
        assert "it has 1 user and 0 prompts." in command("restore", file, code=1)
        assert command("backup").startswith(f"{data}/backups/promptwire-")
        with DataFolder(data).locked():
            assert command("restore", file, code=1) == f"The stack on {data} runs: stop `make up` first."
        assert [each.stat().st_mode & 0o777 for each in (data / "backups").iterdir()] == [0o600]
        assert not any(map(psutil.pid_exists, map(int, json.loads((data / "processes.json").read_text()))))

    def test_a_running_stack_is_backed_up(
        self, command: Callable[..., str], settings: Settings, alice: ApiUser, tmp_path: Path
    ) -> None:
        folder = DataFolder(tmp_path / "data")
        write_private(folder.path / "env", f"DATABASE_URL={settings.database_url.get_secret_value()}\n")
        with folder.locked():
            command("backup", tmp_path / "new.dump")
        assert read_revision(tmp_path / "new.dump") == migrations.head()

    def test_the_database_of_the_settings_is_backed_up_and_restored(
        self, command: Callable[..., str], settings: Settings, empty: Settings, alice: ApiUser, tmp_path: Path
    ) -> None:
        command("backup", tmp_path / "new.dump", **environment_of(settings))
        command("restore", tmp_path / "new.dump", **environment_of(empty))
        assert rows(empty, "SELECT username FROM users") == [("alice",)]

    def test_a_restore_revokes_keys_and_disables_webhooks_on_demand(
        self, command: Callable[..., str], settings: Settings, empty: Settings, alice: ApiUser, tmp_path: Path
    ) -> None:
        alice.post("/auth/keys/", json={"name": "Report"})
        create_webhook(alice)
        command("backup", tmp_path / "new.dump", **environment_of(settings))
        command("restore", tmp_path / "new.dump", "--revoke-keys", "--disable-webhooks", **environment_of(empty))
        query = "SELECT revoked_at IS NOT NULL, disabled_at IS NOT NULL FROM api_keys, webhooks"
        assert rows(empty, query) == [(True, True)]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_ends_a_backup_and_leaves_nothing(
        self,
        command: Callable[..., str],
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        number: signal.Signals,
    ) -> None:
        monkeypatch.setattr(PostgresTools, "dump", lambda *_: os.kill(os.getpid(), number))
        with handled_as_in_a_new_process(number) as handler:
            printed = command("backup", tmp_path / "new" / "new.dump", code=1, **environment_of(settings))
            assert signal.getsignal(number) is handler
        assert printed == "Interrupted."
        assert list((tmp_path / "new").iterdir()) == []

    def test_a_restore_that_is_interrupted_changes_nothing_and_stops_its_server(
        self, command: Callable[..., str], backup: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(PostgresTools, "restore", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert command("restore", backup(), code=1) == "Interrupted. Nothing has changed."
        (pid,) = json.loads((tmp_path / "data" / "processes.json").read_text())
        assert not psutil.pid_exists(int(pid))


@contextmanager
def handled_as_in_a_new_process(number: signal.Signals) -> Iterator[object]:
    """Python's own handler of a signal, also if this process has another one: under `nohup`, SIGHUP is ignored."""
    handler = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, handler)
    try:
        yield handler
    finally:
        signal.signal(number, before)


_DOCKER = """#!/bin/sh
case "$*" in
    "compose exec -T postgres "*) shift 4; exec "$@" ;;
    "compose run --rm --no-deps migrate python "*) shift 6; exec {python} "$@" ;;
    "compose up --detach --wait" | "compose stop api worker") ;;
    *) echo "unexpected: docker $*" >&2; exit 1 ;;
esac
"""


def test_the_commands_for_docker_compose_back_up_and_restore(
    servers: Servers, settings: Settings, alice: ApiUser, make_app: Callable[..., tuple], tmp_path: Path
) -> None:
    """They are run as the page has them, but on the tests' server: a script stands in for docker."""
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.partition("### With Docker Compose")[2].partition("\n### ")[0]
    back, forth = re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    docker = tmp_path / "docker"
    docker.write_text(_DOCKER.format(python=sys.executable))
    docker.chmod(0o700)
    compose = servers.changed(settings, database_url=servers.postgres.url("promptwire"))
    address = {"PGHOST": "127.0.0.1", "PGPORT": str(servers.postgres.port), "PGPASSWORD": "pg-secret"}
    path = f"{tmp_path}:{postgres_bin()}:{os.environ['PATH']}"
    environment = os.environ | environment_of(compose) | address | {"PATH": path, "PYTHONPATH": str(ROOT)}

    def run(commands: str) -> None:
        script = ["sh", "-eu", "-c", commands]
        done = subprocess.run(
            script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=MAX_WAIT_SECONDS
        )
        assert done.returncode == 0, done.stderr

    with servers.copy() as empty:
        servers._execute(f'ALTER DATABASE "{empty}" RENAME TO promptwire')
        prompt_id = alice.submit()
        run(back.replace(" promptwire > ", f" {settings.database_url.get_secret_value().rpartition('/')[2]} > "))
        assert (tmp_path / "promptwire.dump").stat().st_mode & 0o777 == 0o600
        run(forth)
        servers._execute(f'ALTER DATABASE promptwire RENAME TO "{empty}"')
        restored = servers.changed(settings, database_url=servers.postgres.url(empty))
        assert rows(restored, "SELECT id, status FROM prompts") == [(prompt_id, Status.QUEUED)]
        app, _ = make_app(database_url=restored.database_url)
        assert_problem(alice.at(app).get("/prompts/"), 401)
        assert ApiUser(app, "alice", is_new=False).submit() > prompt_id + GAP
