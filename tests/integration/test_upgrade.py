"""An upgrade from the first release: its data come along, and its processes run on the present schema.

`tests/data/first_release/README.md` says how its dump and its statements were made.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from click.testing import CliRunner
from flask import Flask

from shared.accounts import users
from shared.db import migrations
from shared.db.engine import make_engine
from shared.messaging.announcements import Announcer
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.settings import Settings
from tests.support.client import PASSWORD, ApiUser, serving
from tests.support.processes import RemoteUser
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, Servers, environment_of
from tests.support.webhook_calls import create as create_webhook
from tests.support.webhook_calls import deliveries, recover
from worker.maintenance.reaper import Reaper
from worker.pipeline import Pipeline
from worker.reindex.__main__ import main as reindex

COMMIT = "6a82d21"
#: As some keyboards compose it: an `e` and an accent.
OLD_PASSWORD = "cafe\u0301 au lait"
DATA = ROOT / "tests" / "data" / "first_release"
# As if the dump had just been made: otherwise leases, logins and feeds would be older each day.
_MAKE_RECENT = """
DO $$
DECLARE age interval := now() - (SELECT max(created_at) FROM prompts); name record;
BEGIN
    FOR name IN
        SELECT table_name AS t, string_agg(format('%1$I = %1$I + $1', column_name), ', ') AS changes
        FROM information_schema.columns
        WHERE table_schema = 'public' AND data_type = 'timestamp with time zone' GROUP BY 1
    LOOP
        EXECUTE format('UPDATE %I SET %s', name.t, name.changes) USING age;
    END LOOP;
END $$
"""
_COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'
FROM information_schema.columns WHERE table_schema = 'public'
"""


def execute(database_url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Execute statements. Returns the rows of the last one."""
    with contextlib.closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def first_release(servers: Servers) -> Iterator[str]:
    """The URL of a database as the first release left it."""
    with servers.copy() as name:
        url = servers.postgres.url(name)
        execute(url, (DATA / "dump.sql").read_text(), "SET search_path = public", _MAKE_RECENT)
        yield url


@pytest.fixture
def settings(servers: Servers, first_release: str, database: str) -> Settings:
    """The settings of the present release with that database, migrated. (`database` empties Redis.)"""
    changed = servers.settings(database, database_url=first_release)
    engine = make_engine(changed, application_name="test")
    migrations.upgrade(engine)
    engine.dispose()
    return changed


@pytest.fixture
def reaper(settings: Settings, worker: Pipeline) -> Iterator[Reaper]:
    with make_redis(settings) as redis:
        yield Reaper(settings, worker.sessions, Queue(make_celery(settings), redis), Announcer(redis))


def end_all_prompts(url: str, reaper: Reaper, worker: Pipeline) -> None:
    """Let all leases lapse, and the present release answer what is left."""
    execute(url, "UPDATE prompts SET due_at = now() - interval '1 s' WHERE status = 'processing'")
    for _ in range(10):
        reaper.round()
        while worker.process(10).completed:
            pass
    assert execute(url, "SELECT prompt_text, status FROM prompts WHERE due_at IS NOT NULL") == []


def test_prompts_of_the_first_release_are_answered_found_and_pushed(
    first_release: str, settings: Settings, app: Flask, reaper: Reaper, worker: Pipeline
) -> None:
    alice = ApiUser(app, "alice", is_new=False)
    with serving(app) as url, RemoteUser(url, "alice", is_new=False).join(since=0) as room:
        assert [room.receive()["seq"] for _ in range(3)] == [6, 1, 2]
        end_all_prompts(first_release, reaper, worker)
        ended = {each["prompt_text"]: each["status"] for each in alice.get("/prompts/?limit=50").json}
        assert ended == {
            "What causes ocean tides?": "completed",
            "Suggest a name for my cat": "completed",
            "Queued, with a key": "completed",
            "Cancelled": "cancelled",
            "Failed": "failed",
            "In a backoff": "completed",
            "Its worker has died": "completed",
            "Its worker has died in the last attempt": "failed",
            "Being answered": "completed",
        }
    found = alice.get("/prompts/similar/?prompt=What causes ocean tides?&limit=1").json
    assert "What causes ocean tides?" in json.dumps(found)
    checked = CliRunner().invoke(reindex, ["--check"], env=environment_of(settings))
    assert (checked.exit_code, checked.output.splitlines()[-1]) == (0, "2 users compared, 0 with differences.")
    repeated = alice.post(
        "/prompts/",
        json={"prompt_text": "Queued, with a key", "websocket": True, "history": 2},
        headers={"Idempotency-Key": "key-1"},
    )
    assert repeated.json["status"] == "completed"


@pytest.fixture
def legacy_users(first_release: str) -> None:
    """Users of the first release whose names differ only in case, or cannot be registered any more.

    The first one's password is not normalised.
    """
    for name, password in (("Carol", OLD_PASSWORD), ("CAROL", PASSWORD), ("carol", PASSWORD), ("..", PASSWORD)):
        columns = f"('{name}', '{users.hash_password(password)}')"
        execute(first_release, f"INSERT INTO users (username, password_hash) VALUES {columns}")  # noqa: S608


@pytest.mark.usefixtures("legacy_users")  # before the migration, which `settings` does
class TestUsersOfTheFirstRelease:
    @pytest.mark.parametrize("username", ["CAROL", "carol", "..", "alice"])
    def test_they_log_in_by_their_exact_names(self, app: Flask, username: str) -> None:
        own = ApiUser(app, username, is_new=False)
        assert own.get("/prompts/").status_code == 200
        assert {prompt["user"] for prompt in own.get("/prompts/").json} <= {username}

    @pytest.mark.parametrize("username", ["Carol", "CaRoL"])
    def test_the_first_user_of_a_shared_name_has_it_in_all_other_cases(self, app: Flask, username: str) -> None:
        login = {"username": username, "password": OLD_PASSWORD}
        assert app.test_client().post("/login/", json=login).status_code == 200

    @pytest.mark.parametrize(("username", "status"), [("cARol", 409), ("ALICE", 409), ("..", 400), ("dave", 201)])
    def test_another_case_of_a_shared_name_cannot_be_registered(self, app: Flask, username: str, status: int) -> None:
        login = {"username": username, "password": PASSWORD}
        assert app.test_client().post("/auth/register/", json=login).status_code == status

    def test_a_password_that_was_not_normalised_keeps_working_and_then_matches_in_any_form(self, app: Flask) -> None:
        normal = unicodedata.normalize("NFC", OLD_PASSWORD)
        assert normal != OLD_PASSWORD
        logins = [{"username": "Carol", "password": password} for password in (OLD_PASSWORD, normal, OLD_PASSWORD)]
        assert [app.test_client().post("/login/", json=login).status_code for login in logins] == [200, 200, 200]


def test_migrations_only_add(servers: Servers, first_release: str) -> None:
    """Otherwise the release before could not run during an upgrade, nor after a rollback."""
    before = {tuple(names): kind for *names, kind, _ in execute(first_release, _COLUMNS)}
    engine = make_engine(servers.settings("", database_url=first_release), application_name="test")
    migrations.upgrade(engine)
    engine.dispose()
    rows = execute(first_release, _COLUMNS)
    assert {tuple(names): kind for *names, kind, _ in rows}.items() >= before.items()
    tables = {table for table, _ in before}
    needed = {(table, name) for table, name, _, is_needed in rows if is_needed and table in tables}
    assert needed <= before.keys(), "the first release does not know these columns, which have no default"


def test_statements_of_the_first_release_do_the_same_on_the_present_schema(
    first_release: str, settings: Settings, reaper: Reaper, worker: Pipeline
) -> None:
    send_statements(first_release)
    end_all_prompts(first_release, reaper, worker)


def send_statements(url: str) -> None:
    """Send what the API, the worker and the reaper of the first release sent, with the same results."""
    statements = json.loads((DATA / "statements.json").read_text())
    assert len(statements) > 50
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement, count in statements:
            if "DECLARE" in statement:
                cursor.execute("BEGIN")
            cursor.execute(statement)
            assert cursor.rowcount == count, statement
            if "CLOSE" in statement:
                cursor.execute("COMMIT")


def test_what_a_worker_of_the_first_release_finishes_is_in_no_usage_and_recovered_by_webhooks(
    first_release: str, settings: Settings, app: Flask
) -> None:
    alice = ApiUser(app, "alice", is_new=False)
    webhook = create_webhook(alice)
    send_statements(first_release)
    assert deliveries(alice, webhook) == []
    assert alice.get("/usage/").json["total"]["prompts"] == 0
    ((events,),) = execute(
        first_release,
        "SELECT count(*) FROM feed JOIN prompts ON prompts.id = prompt_id JOIN users ON users.id = feed.user_id "
        "WHERE username = 'alice' AND change IN ('completed', 'failed', 'cancelled')",
    )
    assert recover(alice, webhook, 0) == events > 4


def test_a_user_that_the_first_release_adds_has_the_name_in_any_case(
    first_release: str, settings: Settings, app: Flask
) -> None:
    insert = "INSERT INTO users (username, password_hash) VALUES ('{}', '{}')"
    execute(first_release, insert.format("Dave", users.hash_password(PASSWORD)))
    assert ApiUser(app, "dAVE", is_new=False).get("/account/").json["username"] == "Dave"
    with pytest.raises(psycopg2.errors.UniqueViolation):
        execute(first_release, insert.format("DAVE", users.hash_password(PASSWORD)))


def test_the_code_of_the_first_release_runs_on_the_present_schema(
    first_release: str, settings: Settings, tmp_path: Path
) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", COMMIT], capture_output=True, check=False, timeout=MAX_WAIT_SECONDS
    )
    if archive.returncode:
        pytest.skip(f"the history of this checkout does not have {COMMIT}")
    subprocess.run(["tar", "-x", "-C", tmp_path], input=archive.stdout, check=True, timeout=MAX_WAIT_SECONDS)
    program = [sys.executable, DATA / "program.py", "work"]
    environment = os.environ | environment_of(settings) | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=MAX_WAIT_SECONDS
    )
    assert done.returncode == 0, done.stderr
