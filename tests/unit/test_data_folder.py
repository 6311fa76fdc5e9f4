"""The data folder of `make up`: closed to other users, and usable after a full disk left empty files behind."""

import os
import stat
from pathlib import Path

import psutil
import pytest

from infra.local.__main__ import main
from infra.local.data_folder import DataFolder, write_private
from infra.local.servers import Postgres
from tests.support.processes import free_port


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


def modes(path: Path) -> dict[str, int]:
    return {str(each.relative_to(path)): stat.S_IMODE(each.stat().st_mode) for each in (path, *path.rglob("*"))}


def test_the_data_folder_is_closed_to_other_users(folder: DataFolder) -> None:
    folder.secret("jwt")
    folder.port("postgres")
    folder.note_processes([os.getpid()])
    assert {name: mode for name, mode in modes(folder.path).items() if mode & 0o077} == {}


def test_a_folder_of_an_earlier_release_is_closed_at_the_start(folder: DataFolder) -> None:
    (folder.path / "valkey" / "appendonlydir").mkdir(parents=True)
    (folder.path / "valkey" / "appendonlydir" / "incr.aof").touch()
    (folder.path / "postgres").mkdir()
    for path in (folder.path, *folder.path.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with folder.locked():
        open_ones = {name for name, mode in modes(folder.path).items() if mode & 0o077}
        assert open_ones == {"postgres"}  # the server checks it itself


@pytest.mark.parametrize("content", ["", "\n", "12x", "-5"])
def test_an_empty_or_broken_port_is_replaced(folder: DataFolder, content: str) -> None:
    folder.port("valkey")
    (folder.path / "ports" / "valkey").write_text(content)
    port = folder.port("valkey")
    assert folder.port("valkey") == port > 1024


@pytest.mark.parametrize("content", ["", '{"1', "[]", "null"])
def test_an_empty_or_broken_list_of_processes_ends_none(folder: DataFolder, content: str) -> None:
    (folder.path / "processes.json").write_text(content)
    folder.end_leftovers()
    assert psutil.pid_exists(os.getpid())


def test_an_empty_secret_is_replaced(folder: DataFolder) -> None:
    first = folder.secret("jwt")
    (folder.path / "secrets" / "jwt").write_text("")
    assert not folder.has_secret("jwt")
    assert len(folder.secret("jwt")) == len(first)
    assert folder.secret("jwt") != first


def test_a_write_that_fails_keeps_the_old_content(folder: DataFolder) -> None:
    file = folder.path / "env"
    write_private(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(file, "half of it \ud800")
    assert file.read_text() == "old"


@pytest.mark.parametrize("secret", [None, ""])
def test_a_database_without_its_password_gets_no_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], secret: str | None
) -> None:
    data = tmp_path / "data"
    (data / "postgres").mkdir(parents=True)
    (data / "postgres" / "promptwire.initialised").touch()
    (data / "secrets").mkdir()
    if secret is not None:
        (data / "secrets" / "postgres").write_text(secret)
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"PORT": free_port(), "FLOWER_PORT": free_port(), "DATA_DIR": data}.items():
        monkeypatch.setenv(name, str(value))
    assert main(["up"]) == 1
    assert "secrets/postgres is missing or empty" in capsys.readouterr().err
    assert not DataFolder(data).has_secret("postgres")


def test_an_empty_lock_file_of_postgresql_is_removed(tmp_path: Path) -> None:
    """The server refuses to start with one. One with content is left to it."""
    server = Postgres(tmp_path / "postgres", free_port(), "password")
    lock = server.folder / "postmaster.pid"
    (server.folder / "promptwire.initialised").touch()
    lock.write_text("123\n")
    server.initialise()
    assert lock.exists()
    lock.write_text("")
    server.initialise()
    assert not lock.exists()


def test_commands_need_a_stack_that_has_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    (tmp_path / "env").touch()
    assert main(["run", "true"]) == 1
    assert "is missing or empty: start the stack" in capsys.readouterr().err
