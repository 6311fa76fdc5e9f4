"""`.env`: the example works as it is, the guides make it for its owner only, and others who may read it are named."""

import re
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values

from infra.doctor.settings import exposed_secrets
from infra.local.options import Options
from shared.settings import Settings
from tests.support.servers import MAX_WAIT_SECONDS, ROOT

EXAMPLE = ROOT / ".env.example"
# Lines of the pages, of shell scripts and of the example itself that write a .env.
COMMANDS = [
    (file.name, line.lstrip("# ").removeprefix("Copy it, readable by you only: "))
    for file in (EXAMPLE, *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "infra").rglob("*.sh"))
    for line in file.read_text().splitlines()
    if re.search(r"\.env\.example\s*(>\s*)?\.env\b", line)
]


def test_the_guides_make_a_dotenv_file() -> None:
    assert {".env.example", "deployment.md"} <= {name for name, _ in COMMANDS}


@pytest.mark.parametrize("command", [command for _, command in COMMANDS], ids=[name for name, _ in COMMANDS])
def test_a_documented_command_makes_a_file_for_its_owner_only(command: str, tmp_path: Path) -> None:
    (tmp_path / ".env.example").write_bytes(EXAMPLE.read_bytes())
    subprocess.run(["bash", "-euc", f"umask 022; {command}"], cwd=tmp_path, check=True, timeout=MAX_WAIT_SECONDS)
    made = tmp_path / ".env"
    assert made.stat().st_mode & 0o777 == 0o600
    assert set(dotenv_values(made)) == {"JWT_SECRET_KEY", "APP_ENV"}


def test_the_documented_command_with_a_new_secret_does_not_replace_one(tmp_path: Path) -> None:
    (command,) = (command for name, command in COMMANDS if name == "deployment.md")
    (tmp_path / ".env.example").write_bytes(EXAMPLE.read_bytes())
    (tmp_path / ".env").write_text("JWT_SECRET_KEY=kept\n")
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False, timeout=MAX_WAIT_SECONDS
    )
    assert done.returncode != 0
    assert (tmp_path / ".env").read_text() == "JWT_SECRET_KEY=kept\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with no settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("DATA_DIR", *map(str.upper, Settings.model_fields)):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_make_up_accepts_a_copy_of_the_example(folder: Path) -> None:
    (folder / ".env").write_bytes(EXAMPLE.read_bytes())
    assert Options.from_environment() == Options("127.0.0.1", 8_000, 5_555, Path(".local"))


def test_make_up_accepts_the_dotenv_file_of_compose(folder: Path) -> None:
    own = "JWT_SECRET_KEY=k/@y\nPOSTGRES_PASSWORD=p/@p\nREDIS_PASSWORD=r/@r\nFLOWER_PASSWORD=f\nTAG=v1\nMINILM=1\n"
    (folder / ".env").write_text(own)
    assert Options.from_environment().port == Settings.model_fields["port"].default


@pytest.mark.parametrize(
    ("mode", "text", "names"),
    [
        (0o644, "JWT_SECRET_KEY=k\nPOSTGRES_PASSWORD=p\nPORT=8001\n", ["JWT_SECRET_KEY", "POSTGRES_PASSWORD"]),
        (0o640, "OPENAI_API_KEY=k\n", ["OPENAI_API_KEY"]),
        (0o600, "JWT_SECRET_KEY=k\n", []),
        (0o644, "JWT_SECRET_KEY=\nPORT=8001\n", []),
    ],
)
def test_secrets_that_others_may_read_are_named(tmp_path: Path, mode: int, text: str, names: list[str]) -> None:
    file = tmp_path / ".env"
    file.write_text(text)
    file.chmod(mode)
    assert exposed_secrets(file) == names


def test_a_missing_dotenv_file_exposes_nothing(tmp_path: Path) -> None:
    assert exposed_secrets(tmp_path / ".env") == []
