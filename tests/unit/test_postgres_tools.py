"""How `make backup` calls PostgreSQL's programs: programs that write down their arguments stand in for them."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra.local.errors import CannotStartError
from infra.local.postgres_tools import PostgresTools, ToolError

_PROGRAM = f"""#!{sys.executable}
import json, os, sys
if "--version" in sys.argv:
    print("pg_dump (PostgreSQL) 18.4 (Debian 18.4-1)")
else:
    names = ("PGPASSWORD", "PGHOST", "PGPORT")
    called = [sys.argv[1:], {{name: os.environ[name] for name in names if name in os.environ}}]
    open(__file__ + ".called", "w").write(json.dumps(called))
    if "missing" in sys.argv[-1]:
        sys.exit("pg_dump: error: there is no \\x1b[31m such thing\\npg_dump: detail: more")
"""


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("postgres", "pg_dump"):
        (tmp_path / name).write_text(_PROGRAM)
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    for name in ("PGPASSWORD", "PGHOST", "PGPORT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def dump(url: str, monkeypatch: pytest.MonkeyPatch, *, server: int = 18) -> None:
    connection = SimpleNamespace(server_version=server * 10_000, close=lambda: None)
    tools = PostgresTools(url)
    monkeypatch.setattr(tools, "connect", lambda _: connection)
    tools.dump(Path("file"))


@pytest.mark.parametrize(
    ("url", "dsn", "environment"),
    [
        ("postgresql://me:p%40s%2Fs@db/name", "postgresql://me@db/name", {"PGPASSWORD": "p@s/s"}),
        ("postgres://me@db:6432/name", "postgresql://me@db:6432/name", {}),
        ("postgresql+psycopg2://u:p@db/n?sslmode=require", "postgresql://u@db/n?sslmode=require", {"PGPASSWORD": "p"}),
        ("postgresql://u:p@/n?host=/run", "postgresql://u@/n?host=%2Frun", {"PGPASSWORD": "p"}),
        (
            "postgresql://u:p@one,two:6000/n",
            "postgresql://u@/n",
            {"PGPASSWORD": "p", "PGHOST": "one,two", "PGPORT": "5432,6000"},
        ),
    ],
)
def test_the_password_is_not_on_the_command_line(
    programs: Path, monkeypatch: pytest.MonkeyPatch, url: str, dsn: str, environment: dict[str, str]
) -> None:
    dump(url, monkeypatch)
    arguments, found = json.loads((programs / "pg_dump.called").read_text())
    assert arguments[-1] == f"--dbname={dsn}"
    assert found == environment


def test_a_server_that_is_newer_than_the_programs_is_refused(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotStartError) as raised:
        dump("postgresql://u:p@db/n", monkeypatch, server=19)
    assert str(raised.value) == (
        f"The server is PostgreSQL 19, and pg_dump in {programs} is 18: "
        "set PG_BIN to the folder of the programs of PostgreSQL 19."
    )


def test_an_older_server_is_dumped(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump("postgresql://u:p@db/n", monkeypatch, server=17)
    assert (programs / "pg_dump.called").exists()


def test_the_first_error_is_passed_on_without_control_characters(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ToolError) as raised:
        dump("postgresql://u:p@db/missing", monkeypatch)
    assert str(raised.value) == "pg_dump: error: there is no ?[31m such thing"


def test_a_missing_program_is_named(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (programs / "pg_dump").unlink()
    with pytest.raises(ToolError, match="pg_dump cannot be run: No such file or directory"):
        dump("postgresql://u:p@db/n", monkeypatch)
