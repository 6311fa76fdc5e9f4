"""What `pip install .` gives: the packages with their files, three commands, and one version."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from shared.version import get_version
from tests.support.servers import MAX_WAIT_SECONDS, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPTS = PROJECT["scripts"]
TYPESCRIPT = ROOT / "api" / "client" / "typescript"


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Calls a console script's function in this process. Returns what it printed, and its exit code."""

    def call_here(script: str, option: str) -> tuple[str, int]:
        module, _, function = SCRIPTS[script].partition(":")
        monkeypatch.setattr(sys, "argv", [script, option])
        try:
            getattr(import_module(module), function)()
        except SystemExit as end:
            return capsys.readouterr().out, int(end.code or 0)
        return capsys.readouterr().out, 0

    return call_here


def start(script: str, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Starts a console script, without any settings, and away from a `.env`."""
    module, _, function = SCRIPTS[script].partition(":")
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = {script!r}; {before}\n"
    code += f"from {module} import {function}\nsys.exit({function}())"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command,
        cwd="/",
        env={"HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
        timeout=MAX_WAIT_SECONDS,
    )


def test_there_are_three_commands() -> None:
    assert SCRIPTS.keys() == {"promptwire", "promptwire-users", "promptwire-doctor"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_shows_the_version(show, script: str) -> None:
    assert show(script, "--version") == (f"{script}, version {PROJECT['version']}\n", 0)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_shows_its_help(show, script: str) -> None:
    shown, code = show(script, "--help")
    assert (shown.startswith("Usage: "), "--version" in shown, code) == (True, True, 0)


@pytest.mark.parametrize(("script", "arguments"), [("promptwire-users", ["list"]), ("promptwire-doctor", [])])
def test_without_settings_a_command_says_which_are_missing(script: str, arguments: list[str]) -> None:
    done = start(script, *arguments)
    assert done.returncode == 1
    assert "DATABASE_URL is not set." in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


class TestClientWithoutItsExtra:
    missing = "sys.modules['httpx_sse'] = None"

    def test_it_says_what_to_install(self) -> None:
        done = start("promptwire", "list", before=self.missing)
        assert (done.returncode, done.stdout) == (1, "")
        assert "the package httpx_sse, which is not installed" in done.stderr
        assert 'pip install ".[client]"' in done.stderr
        assert "Traceback" not in done.stderr

    def test_it_shows_the_version(self) -> None:
        done = start("promptwire", "--version", before=self.missing)
        assert (done.returncode, done.stdout) == (0, f"promptwire, version {PROJECT['version']}\n")


def test_the_version_is_that_of_the_project_file() -> None:
    assert get_version() == PROJECT["version"]


def test_a_copy_of_the_client_claims_no_version_of_the_project_around_it(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "api" / "client", tmp_path / "src" / "vendored")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "9.9"\n')
    command = [sys.executable, "-m", "vendored", "--version"]
    shown = subprocess.run(
        command, cwd=tmp_path / "src", capture_output=True, text=True, check=True, timeout=MAX_WAIT_SECONDS
    ).stdout
    assert "9.9" not in shown


def test_the_changelog_has_what_is_unreleased_then_the_current_version() -> None:
    titles = re.findall(r"^## \[(.+?)\](?: - \d{4}-\d\d-\d\d)?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[:2] == ["Unreleased", PROJECT["version"]]


def test_the_versions_of_python_are_those_that_the_workflow_tests() -> None:
    prefix = "Programming Language :: Python :: "
    declared = [each.removeprefix(prefix) for each in PROJECT["classifiers"] if each.startswith(prefix)]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == declared
    assert PROJECT["requires-python"] == f">={declared[0]}"


def test_make_check_compares_declared_with_imported_packages() -> None:
    (recipe,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "\t$(BIN)/deptry .\n" in recipe


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=MAX_WAIT_SECONDS)
    (built,) = folder.iterdir()
    assert built.name == f"promptwire-{PROJECT['version']}-py3-none-any.whl"
    return set(zipfile.ZipFile(built).namelist())


@pytest.mark.parametrize("package", ["api", "worker", "shared", "infra/doctor"])
def test_the_wheel_contains_every_file_of_a_package(wheel: set[str], package: str) -> None:
    files = {
        path
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and TYPESCRIPT not in path.parents
    }
    assert {str(path.relative_to(ROOT)) for path in files} <= wheel


def test_the_wheel_contains_nothing_that_only_a_checkout_runs(wheel: set[str]) -> None:
    assert {name.split("/")[0] for name in wheel if "dist-info" not in name} == {"api", "worker", "shared", "infra"}
    assert not [name for name in wheel if re.match(r"infra/(aws|checks|images|local)/", name) or name.endswith(".tf")]


def test_the_package_for_npm_has_the_same_version_and_is_in_no_wheel_and_no_image(wheel: set[str]) -> None:
    package = json.loads((TYPESCRIPT / "package.json").read_text())
    lock = json.loads((TYPESCRIPT / "package-lock.json").read_text())
    assert {package["version"], lock["version"], lock["packages"][""]["version"]} == {PROJECT["version"]}
    assert "dependencies" not in package
    assert (TYPESCRIPT / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert "resolved" not in str(lock), "the lock file names a registry"
    folder = str(TYPESCRIPT.relative_to(ROOT))
    assert not [name for name in wheel if name.startswith(folder)]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert folder in ignored[ignored.index("!api") :]
