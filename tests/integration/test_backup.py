"""Backups, and restores of them: what comes back, what is refused, and that a failed restore changes nothing."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import psycopg2
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from infra.local.__main__ import main
from infra.local.backup import back_up, restore
from infra.local.backup_commands import prepare
from infra.local.data_folder import DataFolder
from infra.local.errors import CannotStartError
from infra.local.postgres_tools import PostgresTools, read_revision
from infra.local.servers import postgres_bin
from shared.db import migrations
from shared.db.engine import Sessions
from shared.db.models import Status
from shared.db.restored import GAP
from shared.settings import Settings
from tests.support import lifecycle
from tests.support.client import ApiUser, assert_problem, serving
from tests.support.processes import RemoteUser
from tests.support.servers import ROOT, Servers, environment_of, wait_until
from worker.pipeline import Pipeline
from worker.reindex.__main__ import main as reindex
from worker.services import make_services

COUNTS = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM prompts)"
DATABASES = "SELECT datname FROM pg_database ORDER BY 1"
ENDED = (Status.COMPLETED, Status.CANCELLED)


@pytest.fixture
def tools(settings: Settings) -> PostgresTools:
    return PostgresTools(settings.database_url.get_secret_value())


@pytest.fixture
def backup(tools: PostgresTools, tmp_path: Path) -> Callable[[], Path]:
    """Back up the database of the test."""

    def write() -> Path:
        file = tmp_path / f"{uuid4().hex}.dump"
        back_up(tools, file)
        return file

    return write


@pytest.fixture
def empty(servers: Servers, settings: Settings) -> Iterator[Settings]:
    """The settings of an installation whose database does not exist yet."""
    name = f"test_{uuid4().hex[:12]}"
    yield servers.changed(settings, database_url=servers.postgres.url(name))
    servers._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def restore_into(settings: Settings, file: Path, *, replace: bool = False) -> str:
    """Restore a backup. Returns what it said."""
    said: list[str] = []
    tools = PostgresTools(settings.database_url.get_secret_value())
    restore(tools, file, prepare=lambda name: prepare(settings, name), replace=replace, say=said.append)
    return "\n".join(said)


def rows(settings: Settings, query: str) -> list[tuple]:
    with contextlib.closing(psycopg2.connect(settings.database_url.get_secret_value())) as connection:
        cursor = connection.cursor()
        cursor.execute(query)
        return cursor.fetchall()


class Load:
    """A user who submits one prompt after the other, and a worker that answers them, in threads."""

    def __init__(self, user: ApiUser, worker: Pipeline) -> None:
        self.acknowledged: list[int] = []
        self._user, self._worker = user, worker
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._repeat, args=[do]) for do in (self._submit, self._answer)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def grow(self, count: int) -> None:
        """Wait until so many more prompts are acknowledged."""
        goal = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= goal, what="the submissions")

    def _repeat(self, do: Callable[[], None]) -> None:
        while not self._ended.wait(0.005):
            do()

    def _submit(self) -> None:
        self.acknowledged.append(self._user.submit(f"Question {len(self.acknowledged)}", websocket=True))

    def _answer(self) -> None:
        self._worker.process(3)


def test_a_backup_that_was_taken_under_load_brings_everything_back(
    make_app: Callable[..., tuple],
    settings: Settings,
    alice: ApiUser,
    worker: Pipeline,
    sessions: Sessions,
    empty: Settings,
    backup: Callable[[], Path],
) -> None:
    with sessions.begin() as session:
        held = lifecycle.submit(session, alice.id, "Held by a worker").id
        lifecycle.claim(session, held)
    cancelled = alice.submit("Cancelled")
    alice.post(f"/prompts/{cancelled}/cancel/")
    with Load(alice, worker) as load:
        load.grow(10)
        acknowledged = [*load.acknowledged, held, cancelled]
        known = {prompt_id: shown for prompt_id in acknowledged if (shown := alice.show(prompt_id))["status"] in ENDED}
        file = backup()
        load.grow(5)
    since = [seq for (seq,) in rows(settings, "SELECT seq FROM feed ORDER BY seq")]

    assert "1 users and" in restore_into(empty, file)
    app, _ = make_app(database_url=empty.database_url)
    assert_problem(alice.at(app).get("/prompts/"), 401)
    restored = ApiUser(app, "alice", is_new=False)
    shown = {prompt_id: restored.show(prompt_id) for prompt_id in acknowledged}
    assert {prompt_id: shown[prompt_id] for prompt_id in known} == known
    assert shown[cancelled]["status"] == Status.CANCELLED
    assert shown[held]["status"] == Status.QUEUED
    with serving(app) as url:
        user = RemoteUser(url, "alice", is_new=False)
        for number in (0, *since):
            with user.join(since=number) as room:
                assert [room.receive()["type"] for _ in range(2)] == ["connected", "reset"], number

    new = restored.submit("The first one after the restore")
    assert new > load.acknowledged[-1]
    pipeline = make_services(empty).pipeline
    while rows(empty, "SELECT FROM prompts WHERE due_at IS NOT NULL"):
        pipeline.process(10)
    pipeline.sessions.kw["bind"].dispose()
    assert {restored.show(prompt_id)["status"] for prompt_id in acknowledged} == {Status.COMPLETED, Status.CANCELLED}
    assert rows(empty, "SELECT prompt_id FROM feed GROUP BY 1 HAVING count(*) > 1") == []
    checked = CliRunner().invoke(reindex, ["--check"], env=environment_of(empty))
    assert (checked.exit_code, checked.output.splitlines()[-1]) == (0, "1 users compared, 0 with differences.")
    found = restored.get("/prompts/similar/?prompt=Held by a worker&limit=1").json
    assert [each["id"] for each in found] == [held]


class TestRefusedFiles:
    @pytest.fixture
    def refuse(self, empty: Settings) -> Callable[[Path], str]:
        """Try to restore a file. Nothing may come of it. Returns the error message."""

        def try_it(file: Path) -> str:
            with pytest.raises(CannotStartError) as raised:
                restore_into(empty, file, replace=True)
            return str(raised.value)

        return try_it

    def test_a_missing_file(self, refuse: Callable[[Path], str], tmp_path: Path) -> None:
        assert refuse(tmp_path / "missing") == f"{tmp_path / 'missing'} is not a file that can be read."

    @pytest.mark.parametrize(
        "content", [b"", b"PGDMP", b"-- a text", bytes(range(256)) * 8], ids=["empty", "short", "text", "binary"]
    )
    def test_another_file(self, refuse: Callable[[Path], str], tmp_path: Path, content: bytes) -> None:
        (tmp_path / "other").write_bytes(content)
        assert "is not a backup, or is damaged. pg_restore: error: " in refuse(tmp_path / "other")

    def test_a_truncated_backup_leaves_the_present_database_as_it_is(
        self,
        refuse: Callable[[Path], str],
        servers: Servers,
        empty: Settings,
        backup: Callable[[], Path],
        alice: ApiUser,
    ) -> None:
        file = backup()
        restore_into(empty, file)
        databases = servers._execute(DATABASES)
        for share in (0.99, 0.9, 0.5, 0.02):
            os.truncate(file, int(file.stat().st_size * share))
            assert refuse(file).startswith(f"{file} ")
            assert rows(empty, "SELECT username FROM users") == [("alice",)]
            assert servers._execute(DATABASES) == databases

    def test_a_dump_of_another_database(
        self, refuse: Callable[[Path], str], backup: Callable[[], Path], servers: Servers, tmp_path: Path
    ) -> None:
        with servers.copy() as other:
            file = tmp_path / "other.dump"
            back_up(PostgresTools(servers.postgres.url(other)), file)
        assert refuse(file) == f"{file} is a dump of another database, not of Promptwire."

    def test_a_backup_of_a_newer_release(
        self, refuse: Callable[[Path], str], backup: Callable[[], Path], sessions: Sessions
    ) -> None:
        with sessions.begin() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        assert "It is from a newer release: its schema is 9999" in refuse(backup())


class TestPresentDatabase:
    def test_what_is_there_is_only_replaced_on_demand(
        self, alice: ApiUser, bob: ApiUser, backup: Callable[[], Path], empty: Settings
    ) -> None:
        before = backup()
        bob.submit()
        restore_into(empty, backup())
        with pytest.raises(CannotStartError, match=r"it has 2 users and 1 prompts\..*ARGS=--replace"):
            restore_into(empty, before)
        assert rows(empty, COUNTS) == [(2, 1)]
        assert "Deleting what was there: 2 users and 1 prompts." in restore_into(empty, before, replace=True)
        assert rows(empty, COUNTS) == [(2, 0)]

    def test_a_database_in_use_is_not_replaced(
        self, settings: Settings, alice: ApiUser, backup: Callable[[], Path], engine: Engine
    ) -> None:
        file = backup()
        with engine.connect(), pytest.raises(CannotStartError, match="stop the API and the workers"):
            restore_into(settings, file, replace=True)
        assert rows(settings, "SELECT username FROM users") == [("alice",)]


class TestFile:
    def test_only_its_owner_can_read_it(self, backup: Callable[[], Path]) -> None:
        file = backup()
        assert file.stat().st_mode & 0o777 == 0o600
        assert list(file.parent.iterdir()) == [file]

    def test_it_replaces_no_file(self, tools: PostgresTools, tmp_path: Path) -> None:
        (tmp_path / "old.dump").write_text("old")
        with pytest.raises(CannotStartError, match="a backup never replaces a file"):
            back_up(tools, tmp_path / "old.dump")
        assert (tmp_path / "old.dump").read_text() == "old"

    def test_two_backups_do_not_share_a_file(self, tools: PostgresTools, tmp_path: Path) -> None:
        (tmp_path / "new.dump.part").touch()
        with pytest.raises(CannotStartError, match="another backup is being written"):
            back_up(tools, tmp_path / "new.dump")

    def test_nothing_is_left_of_a_backup_that_failed(self, servers: Servers, tmp_path: Path) -> None:
        with pytest.raises(CannotStartError, match="The database cannot be used"):
            back_up(PostgresTools(servers.postgres.url("missing")), tmp_path / "new.dump")
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_written_is_named(self, tools: PostgresTools, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(CannotStartError, match=r"new\.dump cannot be written"):
            back_up(tools, tmp_path / "file" / "new.dump")


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
        assert command("restore", file).endswith("Restored 1 users and 0 prompts. All users log in again.")
        assert "it has 1 users and 0 prompts." in command("restore", file, code=1)
        assert command("backup").startswith(f"{data}/backups/promptwire-")
        with DataFolder(data).locked():
            assert command("restore", file, code=1) == f"The stack on {data} runs: stop `make up` first."
        assert [each.stat().st_mode & 0o777 for each in (data / "backups").iterdir()] == [0o600]
        assert not any(map(psutil.pid_exists, map(int, json.loads((data / "processes.json").read_text()))))

    def test_a_running_stack_is_backed_up(
        self, command: Callable[..., str], settings: Settings, alice: ApiUser, tmp_path: Path
    ) -> None:
        folder = DataFolder(tmp_path / "data")
        folder.write_private(folder.path / "env", f"DATABASE_URL={settings.database_url.get_secret_value()}\n")
        with folder.locked():
            command("backup", tmp_path / "new.dump")
        assert read_revision(tmp_path / "new.dump") == migrations.head()

    def test_the_database_of_the_settings_is_backed_up_and_restored(
        self, command: Callable[..., str], settings: Settings, empty: Settings, alice: ApiUser, tmp_path: Path
    ) -> None:
        command("backup", tmp_path / "new.dump", **environment_of(settings))
        command("restore", tmp_path / "new.dump", **environment_of(empty))
        assert rows(empty, "SELECT username FROM users") == [("alice",)]


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
        done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
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
