"""Settings that cannot work: every process refuses them at once, in one sentence each, without a secret."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from api.users_cli import main as users_command
from infra.doctor.__main__ import main as doctor_command
from infra.local.__main__ import main as local_command
from shared.settings import SettingsError
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, make_settings
from worker import prerequisites
from worker.reindex.__main__ import main as reindex_command

SECRET = "hush-9f2"
GOOD = {
    "DATABASE_URL": f"postgresql://me:{SECRET}@127.0.0.1:9/d",
    "REDIS_URL": "redis://127.0.0.1:9",
    "JWT_SECRET_KEY": SECRET * 5,
    "FLOWER_PASSWORD": SECRET,
}
WRONG = {
    "PORT": "99999",
    "LEASE_SECONDS": "inf",
    "GENERATR": "simulated",
    "REDIS_URL": f"redis://:{SECRET}@host:port/0",
}
SENTENCES = (
    "GENERATR is not a setting; is it GENERATOR? (If GENERATR is another program's, set GENERATOR, too.)",
    "PORT must be a whole number from 1 to 65535.",
    "REDIS_URL: this is not a Redis URL; write it like redis://:password@host:6379/0.",
    "LEASE_SECONDS must be a number from 0.1 to 86400.",
)
# They load so much that each takes a second or two; the commands are tried in this process.
PROCESSES = {
    "api": "gunicorn -c infra/gunicorn.conf.py api.wsgi:app",
    "worker": "celery -A worker.app worker",
    "migration": "alembic upgrade head",
    "flower": "worker.flower",
}
COMMANDS = {"users": (users_command, ["list"]), "reindex": (reindex_command, []), "doctor": (doctor_command, [])}


def run(process: str, **variables: str) -> tuple[int, str]:
    """Run a process with these variables. Returns its exit code and all that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *PROCESSES[process].split()],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | GOOD | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=MAX_WAIT_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout


def assert_refused(code: int, printed: str) -> None:
    assert code == 1
    assert [printed.count(sentence) for sentence in SENTENCES] == [1] * len(SENTENCES)
    assert "Traceback" not in printed
    assert SECRET not in printed


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_refuses_wrong_settings_at_once(process: str) -> None:
    assert_refused(*run(process, **WRONG))


@pytest.mark.parametrize(("command", "arguments"), COMMANDS.values(), ids=COMMANDS)
def test_every_command_refuses_wrong_settings(command: click.Command, arguments: list[str]) -> None:
    result = CliRunner().invoke(command, arguments, env=GOOD | WRONG)
    assert_refused(result.exit_code, result.output)


def test_make_up_refuses_wrong_settings_before_it_starts_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (GOOD | WRONG).items():
        monkeypatch.setenv(name, value)
    assert_refused(local_command(["up"]), capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_refuses_a_generator_that_it_cannot_import() -> None:
    code, printed = run("worker", GENERATOR="no.such:Model")
    assert code == 1
    assert printed.startswith("The worker cannot start.\nGENERATOR='no.such:Model' could not be imported")
    assert "Traceback" not in printed


# `make up` tries the same.
@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("generator", "no.such:Model", "GENERATOR='no.such:Model' could not be imported"),
        ("embedder", "no.such:Model", "EMBEDDER='no.such:Model' could not be imported"),
        ("previous_embedder", "no.such:Model", "PREVIOUS_EMBEDDER='no.such:Model' could not be imported"),
        ("redis_url", "redis://127.0.0.1:9/0?foo=1", "REDIS_URL: an option in it is wrong: .* argument 'foo'"),
        ("redis_url", "redis://127.0.0.1:9/0?socket_timeout=x", "REDIS_URL: an option in it is wrong"),
        ("segments_url", "s4://bucket/segments", "SEGMENTS_URL: Protocol not known: s4"),
        ("heartbeat_file", "/nowhere/file", "HEARTBEAT_FILE=/nowhere/file cannot be written"),
    ],
)
def test_a_worker_tries_what_its_settings_name(setting: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        prerequisites.check(make_settings(**{setting: value}))


def test_an_unavailable_database_is_one_sentence_of_the_migration() -> None:
    code, printed = run("migration")
    assert code == 1
    assert printed.startswith("The database is unavailable: ")
    assert "Traceback" not in printed
    assert SECRET not in printed
