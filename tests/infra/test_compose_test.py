"""`make compose-test` itself: it reads the documentation, prepares what an engine needs, and says why it cannot run."""

import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from infra.compose_test import __main__ as compose_test
from infra.compose_test import debian, machine
from infra.compose_test.deployment import Deployment
from infra.compose_test.docs import read_blocks, read_commands
from infra.compose_test.engine import Engine, EngineError, TemporaryEngine
from infra.compose_test.wheels import select
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, wait_until

pytestmark = pytest.mark.infra


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A deployment of a repository with one file."""
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / ".env").write_text("OLD=1\n")
    (repository / "Dockerfile.api").write_text(
        f"# syntax=docker/dockerfile:1\nFROM python:3@sha256:{'0' * 64} AS base\n"
    )
    monkeypatch.setattr("infra.compose_test.deployment.ROOT", repository)
    return Deployment(tmp_path / "copy", Engine(), {})


def test_the_documentation_deploys_with_three_commands() -> None:
    make_dotenv, up, create_user = read_commands(ROOT / "docs/deployment.md", "Docker, on one machine")
    assert "> .env" in make_dotenv
    assert up.startswith("docker compose up ")
    assert create_user.startswith("docker compose exec ")


def test_a_page_without_commands_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"deployment\.md has no commands below Podman"):
        read_commands(ROOT / "docs/deployment.md", "Podman")


def test_backup_and_restore_are_documented_for_compose() -> None:
    back_up, restore = read_blocks(ROOT / "docs/operations.md", "With Docker Compose")
    assert "pg_dump" in back_up
    assert "pg_restore" in restore
    # A pasted block must stop at a failure: otherwise it would delete the present data.
    assert all(line.endswith(" &&") for block in (back_up, restore) for line in block.splitlines()[:-1])


def test_a_secret_that_is_there_is_not_copied(deployment: Deployment) -> None:
    assert not (deployment.folder / ".env").exists()


def test_registry_references_are_dropped(deployment: Deployment) -> None:
    deployment.drop_registry_references()
    assert (deployment.folder / "Dockerfile.api").read_text() == "FROM python:3 AS base\n"


def test_a_setting_replaces_the_one_that_is_commented_out_and_keeps_the_mode(deployment: Deployment) -> None:
    path = deployment.folder / ".env"
    path.touch(mode=0o600)
    path.write_text("# REDIS_PASSWORD=\nPORT=8000\n# PORTS are numbers\n")
    deployment.configure(REDIS_PASSWORD="'a$b'", PORT="1")
    assert path.read_text() == "# PORTS are numbers\nREDIS_PASSWORD='a$b'\nPORT=1\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_question_in_a_terminal_is_answered_once(deployment: Deployment) -> None:
    shown = deployment.type(
        "read -rsp 'Password: ' a; echo; sleep 0.2; read -rsp 'Again: ' b; [ $a$b = xy ]", ["x", "y"]
    )
    assert shown.split() == ["Password:", "Again:"]


def test_an_answer_that_nobody_asks_for_is_an_error(deployment: Deployment) -> None:
    with pytest.raises(EngineError, match="true"):
        deployment.type("true", ["x"])


def test_a_command_that_fails_shows_its_output(deployment: Deployment) -> None:
    with pytest.raises(EngineError, match=r"exit code 3\n.*no space left"):
        deployment.run("echo no space left >&2; exit 3")


def test_a_lock_is_reduced_to_what_a_version_of_python_needs() -> None:
    lock = (
        "# generated\na==1 ; python_full_version < '3.12' \\\n    --hash=sha256:0\n"
        "b==2 ; python_full_version >= '3.12' \\\n    --hash=sha256:1\nc==3 \\\n    --hash=sha256:2\n"
    )
    assert select(lock, "3.13") == "# generated\nb==2 \\\n    --hash=sha256:1\nc==3 \\\n    --hash=sha256:2\n"


@pytest.mark.parametrize(("arguments", "file"), [(["create", "--bundle"], "config.json"), (["exec", "--process"], "p")])
def test_limits_above_those_of_the_machine_are_lowered(tmp_path: Path, arguments: list[str], file: str) -> None:
    TemporaryEngine(tmp_path, tmp_path / "docker", "none")
    wrapper = (tmp_path / "docker/runc").read_text()
    (tmp_path / "runc").write_text(wrapper.replace('"/usr/sbin/runc"', '"/bin/true"'))
    process = {"rlimits": [{"type": "RLIMIT_NOFILE", "hard": 2**62, "soft": 2**62}]}
    bundle = file == "config.json"
    (tmp_path / file).write_text(json.dumps({"process": process} if bundle else process))
    command = [sys.executable, str(tmp_path / "runc"), *arguments, str(tmp_path if bundle else tmp_path / file), "id"]
    subprocess.run(command, check=True, timeout=MAX_WAIT_SECONDS)
    changed = json.loads((tmp_path / file).read_text())
    (limit,) = (changed["process"] if bundle else changed)["rlimits"]
    assert limit["soft"] == limit["hard"] < 2**62


def test_what_an_engine_leaves_behind_is_named() -> None:
    before = {"network interfaces": {"lo"}, "mounts": {"/", "somebody else's"}}
    after = {"network interfaces": {"lo", "docker0"}, "mounts": {"/"}}
    (difference,) = machine.differences(before, after)
    assert "network interfaces of this machine differ: ['docker0']" in difference


def test_without_an_engine_the_test_says_why_and_passes(tmp_path: Path) -> None:
    """Nothing is on PATH here, so there is neither a Docker nor what unpacks one."""
    result = subprocess.run(
        [sys.executable, "-m", "infra.compose_test"], cwd=ROOT, env={"PATH": str(tmp_path), "HOME": os.environ["HOME"]},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("SKIPPED: Docker Compose was not tested. No Docker engine runs here, and ")


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="only Debian has apt-get")
def test_a_mirror_that_does_not_answer_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compose_test, "_prepare", lambda _: debian.unpack(tmp_path, "http://127.0.0.1:1/debian"))
    monkeypatch.setattr(machine, "observe", lambda _: {})
    assert compose_test.test_with_temporary_engine() == 0
    assert "Debian's packages cannot be fetched" in capsys.readouterr().out


def test_what_runs_is_killed_with_its_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(debian, "_is_stopped", threading.Event())
    (tmp_path / "pids").touch()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(debian.run, ["sh", "-c", "sleep 1000 & echo $$ $! >pids; wait"], tmp_path)
        wait_until(lambda: len((tmp_path / "pids").read_text().split()) == 2, what="the processes")
        debian.stop()
        with pytest.raises(debian.PackageError):
            running.result(timeout=MAX_WAIT_SECONDS)
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        wait_until(
            lambda pid=pid: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", what=str(pid)
        )
    with pytest.raises(debian.PackageError):
        debian.run(["sleep", "1000"])


def test_little_space_is_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose_test, "_NEEDED_BYTES", 2**62)
    monkeypatch.setattr(compose_test, "_TOOLS", {})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian, "find_mirror", lambda: "http://127.0.0.1:1/debian")
    assert "set TMPDIR to a folder with more space" in compose_test._find_obstacle()
