"""`make up` where it cannot start: it exits with 1, after a sentence that says why and what to do."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.local.__main__ import main
from infra.local.data_folder import DataFolder
from tests.support.processes import free_port

NOWHERE = {"DATABASE_URL": "postgresql://u:p@127.0.0.1:9/d", "REDIS_URL": "redis://127.0.0.1:9/0"}


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., str]]:
    """Run `make up` in this process with these variables. It must return 1. Returns its error message."""
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.chdir(tmp_path)  # no .env

    def run(**variables: str) -> str:
        ports = {"PORT": str(free_port()), "FLOWER_PORT": str(free_port()), "DATA_DIR": str(tmp_path / "data")}
        os.environ.update(ports | variables)
        assert main(["up"]) == 1
        return capsys.readouterr().err.strip()

    yield run
    os.environ.clear()
    os.environ.update(environment)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_taken_port_is_named(refused: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", port := free_port())):
        said = refused(PORT=str(port))
    assert said == f"PORT {port} on 127.0.0.1 is taken: set PORT to another one."


def test_a_folder_in_use_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    with DataFolder(tmp_path / "used").locked():
        assert "Another stack runs on" in refused(DATA_DIR=str(tmp_path / "used"))


def test_a_folder_that_cannot_be_written_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refused(DATA_DIR=str(tmp_path / "file" / "data"))
    assert "cannot be written" in said
    assert "set DATA_DIR" in said


def test_a_wrong_setting_is_named(refused: Callable[..., str]) -> None:
    assert "LEASE_SECONDS" in refused(**NOWHERE, LEASE_SECONDS="-1")


def test_an_unavailable_database_is_reported(refused: Callable[..., str]) -> None:
    assert "The database cannot be used" in refused(**NOWHERE)


@pytest.mark.parametrize(
    ("variable", "given"), [("PG_BIN", {}), ("VALKEY_SERVER", {"DATABASE_URL": NOWHERE["DATABASE_URL"]})]
)
def test_a_missing_program_is_named(refused: Callable[..., str], variable: str, given: dict[str, str]) -> None:
    said = refused(**given, **{variable: "/nowhere"})
    assert said.splitlines()[-1].startswith(f"{variable}=/nowhere: there is no program /nowhere")


def test_a_port_that_is_not_a_number_is_refused(refused: Callable[..., str]) -> None:
    assert refused(PORT="many") == "PORT must be a whole number from 1 to 65535."
