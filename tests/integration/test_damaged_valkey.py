"""Valkey with files damaged in every way that was seen starts empty, and keeps them. Other causes leave them alone."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from infra.local.servers import Valkey
from tests.support.processes import free_port
from tests.support.servers import MAX_WAIT_SECONDS, wait_until

PAGE = 4096
GARBAGE = bytes(range(256)) * 20


class Server:
    """A Valkey that is run without a supervisor."""

    def __init__(self, folder: Path) -> None:
        self.valkey = Valkey(folder, free_port(), "password")
        self.valkey.initialise()
        self.log: list[str] = []

    def starts(self) -> bool:
        """Start it. Returns whether it is ready before it ends; afterwards it is killed."""
        process = subprocess.Popen(self.valkey.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wait_until(lambda: process.poll() is not None or self.valkey.is_ready(), what="Valkey starting")
        is_ready = process.poll() is None
        process.kill()
        output, _ = process.communicate(timeout=MAX_WAIT_SECONDS)
        self.log = output.decode(errors="replace").splitlines()
        return is_ready


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with keys in the base and commands after it."""
    folder = tmp_path_factory.mktemp("valkey")
    server = Server(folder)
    process = subprocess.Popen(server.valkey.command, stdout=subprocess.DEVNULL)
    wait_until(server.valkey.is_ready, what="Valkey starting")
    with redis.Redis.from_url(server.valkey.url) as client:
        client.mset({f"key {i}": "x" * 100 for i in range(300)})
        client.bgrewriteaof()
        wait_until(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0, what="the rewrite")
        wait_until(lambda: list((folder / "appendonlydir").glob("*.2.base.rdb")), what="the base")
        for _ in range(300):
            client.lpush("list", "y" * 100)
    process.terminate()
    process.wait(MAX_WAIT_SECONDS)
    return folder / "appendonlydir"


@pytest.fixture
def server(data: Path, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "valkey")
    shutil.copytree(data, server.valkey.folder / "appendonlydir")
    return server


def zeros(offset: int, length: int = PAGE) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        with file.open("r+b") as opened:
            opened.seek(offset)
            opened.write(bytes(length))

    return damage


def one_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def unknown_command(file: Path) -> None:
    file.write_bytes(file.read_bytes().lower().replace(b"lpush", b"lpuzz"))


DAMAGES = {
    "a zeroed page of the commands": ("incr.aof", zeros(2 * PAGE)),
    "the first page of the commands": ("incr.aof", zeros(0)),
    "a zeroed page of the base": ("base.rdb", zeros(2 * PAGE)),
    "one bit of the base": ("base.rdb", one_bit),
    "a base of other bytes": ("base.rdb", lambda file: file.write_bytes(GARBAGE)),
    "a base of a newer release": ("base.rdb", lambda file: file.write_bytes(b"REDIS0099" + file.read_bytes()[9:])),
    "a truncated base": ("base.rdb", lambda file: os.truncate(file, 2 * PAGE)),
    "a missing base": ("base.rdb", Path.unlink),
    "missing commands": ("incr.aof", Path.unlink),
    "an unknown command": ("incr.aof", unknown_command),
    "an empty manifest": ("manifest", lambda file: file.write_bytes(b"")),
    "a zeroed manifest": ("manifest", lambda file: file.write_bytes(bytes(100))),
    "a manifest of other bytes": ("manifest", lambda file: file.write_bytes(GARBAGE)),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_files_are_moved_and_kept(server: Server, what: str) -> None:
    name, damage = DAMAGES[what]
    (file,) = (server.valkey.folder / "appendonlydir").glob(f"*.{name}")
    damage(file)
    assert not server.starts()
    said = server.valkey.set_damaged_data_aside(server.log)
    (aside,) = server.valkey.folder.glob("damaged-*")
    assert str(aside) in said
    assert len(list(aside.iterdir())) >= 2
    assert server.starts()


def test_only_the_files_that_were_damaged_last_are_kept(server: Server) -> None:
    older = server.valkey.folder / "damaged-20200101-000000"
    older.mkdir()
    assert server.valkey.set_damaged_data_aside(["Bad file format reading the append only file x"])
    (aside,) = server.valkey.folder.glob("damaged-*")
    assert aside != older


LOADING = ["* Server initialized", "* Reading RDB base file on AOF loading..."]
REPORT = "=== VALKEY BUG REPORT START: Cut & paste starting from here ==="


@pytest.mark.parametrize(
    ("log", "moves"),
    [
        ([*LOADING, REPORT], True),
        ([*LOADING, "# Out Of Memory allocating 9 bytes!", "# Valkey aborting for OUT OF MEMORY", REPORT], False),
        ([*LOADING, "* Ready to accept connections tcp", REPORT], False),
        (["* Background append only file rewriting started by pid 9", REPORT], False),
    ],
)
def test_files_that_crash_valkey_while_it_loads_them_are_moved(server: Server, log: list[str], moves: bool) -> None:
    assert bool(server.valkey.set_damaged_data_aside(log)) == moves
    assert (server.valkey.folder / "appendonlydir").exists() != moves


@pytest.mark.parametrize("length", [1, 100, PAGE])
def test_commands_that_were_cut_off_are_loaded_up_to_there(server: Server, length: int) -> None:
    """As a power failure leaves them."""
    (file,) = (server.valkey.folder / "appendonlydir").glob("*.incr.aof")
    os.truncate(file, file.stat().st_size - length)
    assert server.starts()


def test_files_stay_if_the_port_is_taken(server: Server) -> None:
    with socket.create_server(("127.0.0.1", server.valkey.port)):
        assert_ends_and_keeps_its_files(server)


def test_files_stay_if_the_configuration_is_wrong(server: Server) -> None:
    (server.valkey.folder / "valkey.conf").write_text("appendonly perhaps\n")
    assert_ends_and_keeps_its_files(server)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_files_stay_if_they_may_not_be_read(server: Server) -> None:
    for file in (server.valkey.folder / "appendonlydir").iterdir():
        file.chmod(0)
    assert_ends_and_keeps_its_files(server)


@pytest.mark.parametrize(
    "line",
    [
        "# Fatal error: can't open the append log file appendonly.aof.2.incr.aof for reading: Permission denied",
        "# Fatal error: can't open the AOF manifest file appendonly.aof.manifest for reading: Permission denied",
        "# Error trying to write the temporary AOF manifest file temp: No space left on device",
        "# Unable to obtain the AOF file appendonly.aof.2.incr.aof length. stat: Permission denied",
        "# Out Of Memory allocating 1048576 bytes!",
    ],
)
def test_files_stay_if_valkey_fails_for_another_reason(server: Server, line: str) -> None:
    assert server.valkey.set_damaged_data_aside([line]) is None
    assert (server.valkey.folder / "appendonlydir").exists()


def assert_ends_and_keeps_its_files(server: Server) -> None:
    process = subprocess.run(
        server.valkey.command, capture_output=True, text=True, timeout=MAX_WAIT_SECONDS, check=False
    )
    assert process.returncode != 0
    assert server.valkey.set_damaged_data_aside(process.stdout.splitlines()) is None
    assert (server.valkey.folder / "appendonlydir").exists()
