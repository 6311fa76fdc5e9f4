"""Operations: health endpoints, degraded service, migrations, the users command line, logs."""

import json
import subprocess
import sys
from subprocess import CompletedProcess
from typing import Any
from unittest.mock import patch

import click
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from click.testing import CliRunner
from flask import Flask
from sqlalchemy import Engine, text

from api import users_cli
from shared.db import migrations
from shared.db.engine import Sessions
from shared.db.models import DEFAULT_ROUTE, Base
from shared.prompts import concurrency
from shared.settings import Settings
from shared.version import get_version
from tests.support.client import PASSWORD, ApiUser, assert_problem
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, environment_of, wait_until
from worker.pipeline import Pipeline


class TestHealth:
    def test_livez_is_ok(self, app: Flask) -> None:
        response = app.test_client().get("/livez")
        assert (response.status_code, response.json["status"]) == (200, "ok")

    def test_livez_and_the_api_description_show_the_version(self, app: Flask) -> None:
        client = app.test_client()
        assert client.get("/livez").json["version"] == get_version()
        assert client.get("/openapi.json").json["info"]["version"] == get_version()

    def test_readyz_is_ok_with_postgres_and_redis(self, app: Flask) -> None:
        response = app.test_client().get("/readyz")
        assert response.status_code == 200
        assert response.json == {
            "status": "ok",
            "version": get_version(),
            "checks": {"postgres": "ok", "redis": "ok"},
        }

    def test_readyz_is_degraded_without_redis(self, make_app, servers) -> None:
        app, _ = make_app(redis_url=servers.settings("x", redis_url="redis://127.0.0.1:9/0").redis_url)
        response = app.test_client().get("/readyz")
        assert (response.status_code, response.json["status"]) == (200, "degraded")

    def test_readyz_is_unavailable_without_postgres(self, make_app, servers) -> None:
        app, _ = make_app(database_url=servers.settings("missing").database_url)
        response = app.test_client().get("/readyz")
        assert (response.status_code, response.json["status"]) == (503, "unavailable")

    def test_readyz_is_unavailable_until_migrated(self, app: Flask, sessions: Sessions) -> None:
        with sessions.begin() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '0000'"))
        response = app.test_client().get("/readyz")
        assert (response.status_code, response.json["checks"]["postgres"]) == (503, "not migrated")

    def test_readyz_is_ok_with_the_schema_of_a_newer_release(self, app: Flask, sessions: Sessions) -> None:
        """Otherwise a deployment loses its old processes when it migrates, and cannot be rolled back."""
        with sessions.begin() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        assert app.test_client().get("/readyz").json["checks"]["postgres"] == "ok"


class TestDegraded:
    def test_without_redis_a_prompt_is_accepted_and_readable(self, make_app, servers, sessions: Sessions) -> None:
        app, _ = make_app(redis_url=servers.settings("x", redis_url="redis://127.0.0.1:9/0").redis_url)
        alice = ApiUser(app, "alice")
        prompt_id = alice.submit("tides")
        assert alice.show(prompt_id)["status"] == "queued"
        with sessions() as session:
            # The reaper will wake up a worker.
            assert concurrency.count_ready(session, DEFAULT_ROUTE, ceiling=None, limit=10) == 1
        assert len(alice.get("/prompts/").json) == 1
        assert alice.get("/prompts/similar/?prompt=tides").status_code == 200

    def test_without_postgres_every_route_is_503(self, make_app, servers, alice: ApiUser) -> None:
        without_postgres, _ = make_app(database_url=servers.settings("missing").database_url)
        alice._client = without_postgres.test_client()
        for method, path in (("GET", "/prompts/"), ("POST", "/prompts/"), ("GET", "/prompts/similar/?prompt=a")):
            response = alice.call(method, path, json={"prompt_text": "a"} if method == "POST" else None)
            assert_problem(response, 503)
            assert int(response.headers["Retry-After"]) > 0

    def test_requests_succeed_after_postgres_has_closed_all_connections(self, alice: ApiUser, engine: Engine) -> None:
        for _ in range(5):
            assert alice.get("/prompts/").status_code == 200
            with engine.connect() as connection:
                killed = connection.scalars(
                    text(
                        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                    )
                ).all()
                assert killed
                assert all(killed)


class TestSchema:
    def test_the_migrated_schema_matches_the_models(self, engine: Engine) -> None:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Base.metadata) == []

    def test_migrating_again_does_nothing(self, engine: Engine) -> None:
        migrations.upgrade(engine)
        with engine.connect() as connection:
            assert migrations.is_current(connection)
            assert migrations.revision(connection) == migrations.head()


def run(settings: Settings, *arguments: str, password: str = PASSWORD) -> CompletedProcess[str]:
    """Run the command in this process, with arguments, streams and an environment of its own."""
    environment = environment_of(settings) | {"NEW_PASSWORD": password, "PATH": ""}
    streams = CliRunner().isolation(env=environment)
    with streams as (stdout, stderr, _), patch.object(sys, "argv", ["promptwire-users", *arguments]):
        exit_code = 0
        try:
            users_cli.cli()
        except SystemExit as end:
            exit_code = end.code
            if isinstance(exit_code, str):  # Python prints it and exits with 1
                click.echo(exit_code, err=True)
                exit_code = 1
        return CompletedProcess(sys.argv, exit_code, *(each.getvalue().decode() for each in (stdout, stderr)))


def run_process(*arguments: str, **popen: Any) -> CompletedProcess[str]:
    command = [sys.executable, "-m", "api.users_cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=MAX_WAIT_SECONDS, **popen)


class TestCommandLine:
    def test_the_command_creates_lists_and_changes_users(self, settings: Settings, app: Flask) -> None:
        assert run(settings, "create", "dave").returncode == 0
        assert "\tdave\t" in run(settings, "list").stdout
        login = {"username": "dave", "password": PASSWORD}
        assert app.test_client().post("/login/", json=login).status_code == 200
        assert run(settings, "set-password", "dave", password="another password").returncode == 0
        assert app.test_client().post("/login/", json=login).status_code == 401

    def test_a_new_password_ends_all_logins_of_its_user(self, settings: Settings, alice: ApiUser) -> None:
        assert run(settings, "set-password", "alice", password="another password").returncode == 0
        assert_problem(alice.get("/prompts/"), 401)

    @pytest.mark.parametrize(
        ("arguments", "password", "message"),
        [
            (("create", "a b"), PASSWORD, "Usernames use letters"),
            (("create", "eve"), "short", "Passwords have 8 to 1024"),
            (("set-password", "nobody"), PASSWORD, "There is no user 'nobody'"),
            (("delete", "nobody", "--yes"), PASSWORD, "There is no user 'nobody'"),
            (("export", "nobody"), PASSWORD, "There is no user 'nobody'"),
        ],
    )
    def test_the_command_reports_invalid_input(
        self, settings: Settings, arguments, password: str, message: str
    ) -> None:
        result = run(settings, *arguments, password=password)
        assert result.returncode == 1
        assert message in result.stderr

    def test_delete_deletes_a_user_and_asks_before(
        self, settings: Settings, app: Flask, alice: ApiUser, bob: ApiUser
    ) -> None:
        alice.submit()
        assert run(settings, "delete", "alice").returncode == 1  # nobody answers
        assert alice.get("/prompts/").status_code == 200
        assert run(settings, "delete", "alice", "--yes").stdout == ("Deleted alice. The workers purge what is left.\n")
        wait_until(lambda: alice.get("/prompts/").status_code == 401)
        assert "alice" not in run(settings, "list").stdout
        assert bob.get("/prompts/").status_code == 200

    def test_export_writes_the_same_lines_as_the_users_own_export(
        self, settings: Settings, alice: ApiUser, worker: Pipeline
    ) -> None:
        alice.submit("What is a tide?")
        worker.process(1)
        result = run(settings, "export", "alice")
        assert result.stdout == alice.get("/account/export/").text
        assert json.loads(result.stdout)["prompt_text"] == "What is a tide?"

    def test_creating_a_user_with_a_taken_name_is_rejected(self, settings: Settings, alice: ApiUser) -> None:
        environment = environment_of(settings) | {"NEW_PASSWORD": PASSWORD, "PATH": ""}
        result = run_process("create", "alice", env=environment, cwd=ROOT)
        assert result.returncode == 1
        assert "taken" in result.stderr

    def test_the_command_names_missing_settings(self) -> None:
        result = run_process("list", env={"PYTHONPATH": str(ROOT)}, cwd="/")
        assert result.returncode == 1
        assert "DATABASE_URL is not set" in result.stderr


class TestLogs:
    def test_logs_contain_the_request_id_and_no_secrets(self, settings: Settings) -> None:
        """Run in a separate process, because logging is configured per process."""
        program = """
import logging
from shared.settings import load_settings
from shared.telemetry.logs import configure_logging
from api.app import create_app
from tests.support.client import ApiUser
settings = load_settings()
configure_logging(settings)
app = create_app(settings)
alice = ApiUser(app, "alice")
print(alice.tokens["access"], alice.tokens["refresh"])
alice.post("/prompts/", json={"prompt_text": "my secret wish"}, headers={"X-Request-ID": "req-9"})
alice.get("/prompts/similar/?prompt=my+secret+query")
def broken():
    password = "local secret"
    raise RuntimeError("broken")
app.view_functions["ops.livez"] = broken
assert app.test_client().get("/livez").status_code == 500
"""
        environment = environment_of(settings) | {"LOG_FORMAT": "json", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", program]
        result = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=MAX_WAIT_SECONDS
        )
        lines = [json.loads(line) for line in result.stderr.splitlines()]
        assert any(line.get("request_id") == "req-9" and line["status"] == 202 for line in lines)
        assert any("RuntimeError: broken" in line.get("exception", "") for line in lines)
        for secret in ("my secret", PASSWORD, "local secret", *result.stdout.split()):
            assert secret not in result.stderr
