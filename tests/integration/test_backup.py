"""Backups, and restores of them: what comes back, what is refused, and that a failed restore changes nothing."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from infra.local.backup import back_up
from infra.local.errors import CannotStartError
from infra.local.postgres_tools import PostgresTools
from shared.db.engine import Sessions
from shared.db.models import Status
from shared.db.restored import GAP
from shared.settings import Settings
from tests.support import lifecycle
from tests.support.backups import restore_into, rows
from tests.support.client import ApiUser, assert_problem, serving
from tests.support.processes import RemoteUser
from tests.support.servers import MAX_WAIT_SECONDS, Servers, environment_of, wait_until
from tests.support.webhook_calls import create as create_webhook
from tests.support.webhook_calls import finish
from worker.pipeline import Pipeline
from worker.reindex.__main__ import main as reindex
from worker.services import make_services

COUNTS = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM prompts)"
DATABASES = "SELECT datname FROM pg_database ORDER BY 1"
ENDED = (Status.COMPLETED, Status.CANCELLED)


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
            thread.join(MAX_WAIT_SECONDS)

    def grow(self, count: int) -> None:
        """Wait until this many more prompts are acknowledged."""
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

    assert "1 user and" in restore_into(empty, file)
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


def test_an_id_that_was_first_given_after_the_backup_is_not_given_again(
    alice: ApiUser, backup: Callable[[], Path], make_app: Callable[..., tuple], empty: Settings
) -> None:
    file = backup()
    given = alice.submit()
    restore_into(empty, file)
    app, _ = make_app(database_url=empty.database_url)
    assert ApiUser(app, "alice", is_new=False).submit() > given + GAP // 2


class TestRefusedFiles:
    @pytest.fixture
    def refuse(self, empty: Settings) -> Callable[[Path], str]:
        """Try to restore a file, which must fail. Returns the error message."""

        def try_it(file: Path) -> str:
            with pytest.raises(CannotStartError) as raised:
                restore_into(empty, file, replace=True)
            return str(raised.value)

        return try_it

    def test_a_missing_file_is_refused(self, refuse: Callable[[Path], str], tmp_path: Path) -> None:
        assert refuse(tmp_path / "missing") == f"{tmp_path / 'missing'} is not a file that can be read."

    @pytest.mark.parametrize(
        "content", [b"", b"PGDMP", b"-- a text", bytes(range(256)) * 8], ids=["empty", "short", "text", "binary"]
    )
    def test_a_file_that_is_no_backup_is_refused(
        self, refuse: Callable[[Path], str], tmp_path: Path, content: bytes
    ) -> None:
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

    def test_a_dump_of_another_database_is_refused(
        self, refuse: Callable[[Path], str], backup: Callable[[], Path], servers: Servers, tmp_path: Path
    ) -> None:
        with servers.copy() as other:
            file = tmp_path / "other.dump"
            back_up(PostgresTools(servers.postgres.url(other)), file)
        assert refuse(file) == f"{file} is a dump of another database, not of Promptwire."

    def test_a_backup_of_a_newer_release_is_refused(
        self, refuse: Callable[[Path], str], backup: Callable[[], Path], sessions: Sessions
    ) -> None:
        with sessions.begin() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        assert "It is from a newer release: its schema is 9999" in refuse(backup())


class TestPresentDatabase:
    def test_a_database_with_data_is_only_replaced_on_demand(
        self, alice: ApiUser, bob: ApiUser, backup: Callable[[], Path], empty: Settings
    ) -> None:
        before = backup()
        bob.submit()
        restore_into(empty, backup())
        with pytest.raises(CannotStartError, match=r"it has 2 users and 1 prompt\..*ARGS=--replace"):
            restore_into(empty, before)
        assert rows(empty, COUNTS) == [(2, 1)]
        assert "Deleting what was there: 2 users and 1 prompt." in restore_into(empty, before, replace=True)
        assert rows(empty, COUNTS) == [(2, 0)]

    def test_a_name_that_leaves_no_room_for_another_one_is_refused(
        self, servers: Servers, settings: Settings, backup: Callable[[], Path]
    ) -> None:
        """PostgreSQL cuts names off at 63 bytes: the restored database would have that of the present one."""
        file, longest = backup(), "x" * 63
        with servers.copy() as name:
            servers._execute(f'ALTER DATABASE "{name}" RENAME TO {longest}')
            try:
                present = servers.changed(settings, database_url=servers.postgres.url(longest))
                with pytest.raises(CannotStartError, match="name is too long"):
                    restore_into(present, file, replace=True)
                assert (longest,) in servers._execute(DATABASES)
            finally:
                servers._execute(f'ALTER DATABASE {longest} RENAME TO "{name}"')

    def test_a_database_in_use_is_not_replaced(
        self, settings: Settings, alice: ApiUser, backup: Callable[[], Path], engine: Engine
    ) -> None:
        file = backup()
        with engine.connect(), pytest.raises(CannotStartError, match="stop the API and the workers"):
            restore_into(settings, file, replace=True)
        assert rows(settings, "SELECT username FROM users") == [("alice",)]


class TestFile:
    def test_only_its_owner_can_read_a_backup(self, backup: Callable[[], Path]) -> None:
        file = backup()
        assert file.stat().st_mode & 0o777 == 0o600
        assert list(file.parent.iterdir()) == [file]

    def test_a_backup_replaces_no_file(self, tools: PostgresTools, tmp_path: Path) -> None:
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


class TestKeysAndWebhooks:
    """What a backup has of API keys and webhooks, and what a restore does with them."""

    @pytest.fixture
    def backed_up(
        self, alice: ApiUser, worker: Pipeline, backup: Callable[[], Path]
    ) -> tuple[dict[str, str], int, Path]:
        """An API key, a webhook with a pending event, and a backup of both."""
        key = alice.post("/auth/keys/", json={"name": "Report"}).json
        webhook = create_webhook(alice)
        finish(alice, worker)
        return {"Authorization": f"Bearer {key['key']}"}, webhook["id"], backup()

    def test_a_pending_event_keeps_its_webhook_id_and_no_later_one_has_it(
        self, make_app: Callable[..., tuple], empty: Settings, backed_up: tuple[dict[str, str], int, Path]
    ) -> None:
        headers, webhook_id, file = backed_up
        restore_into(empty, file)
        app, _ = make_app(database_url=empty.database_url)
        alice = ApiUser(app, "alice", is_new=False)
        pipeline = make_services(empty).pipeline
        finish(alice, pipeline)
        pipeline.sessions.kw["bind"].dispose()
        listed = app.test_client().get(f"/webhooks/{webhook_id}/deliveries/", headers=headers).json
        assert [each["message_id"] for each in reversed(listed)] == [f"msg_{webhook_id}_{seq}" for seq in (1, GAP + 2)]
        assert {each["status"] for each in listed} == {"pending"}

    def test_a_restore_can_revoke_all_keys_and_disable_all_webhooks(
        self, make_app: Callable[..., tuple], empty: Settings, backed_up: tuple[dict[str, str], int, Path]
    ) -> None:
        headers, webhook_id, file = backed_up
        restore_into(empty, file, revoke_keys=True, disable_webhooks=True)
        app, _ = make_app(database_url=empty.database_url)
        assert app.test_client().get("/prompts/", headers=headers).status_code == 401
        audited = rows(empty, "SELECT details, address FROM audit WHERE action = 'key.revoked'")
        assert audited == [({"key_id": 1}, "command line")]
        shown = ApiUser(app, "alice", is_new=False).get(f"/webhooks/{webhook_id}/").json
        assert (shown["status"], shown["disabled_reason"]) == ("disabled", "The service was restored from a backup.")
