"""Our images' Python packages, downloaded before the build, which then needs no index."""

import platform
import re
from pathlib import Path

from packaging.markers import Marker

from infra.compose_test.debian import run

_CONDITION = re.compile(r" ; (.*?)(?= \\$)", re.MULTILINE)


def download(python: str, lock: Path, folder: Path, version: str) -> None:
    """Download the packages of a lock for another version of Python, with this machine's pip and its configuration.

    A package without a wheel is downloaded as source; setuptools, which builds it, comes along. Raises PackageError.
    """
    folder.mkdir()
    wanted = folder.with_suffix(".txt")
    wanted.write_text(select(lock.read_text(), version))
    machine = platform.machine()
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(5, 42)]
    pip = [python, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={folder}", "--disable-pip-version-check"]
    target = [f"--python-version={version}", f"--platform=manylinux2014_{machine}", *platforms]
    run([*pip, *target, "--require-hashes", f"--requirement={wanted}"])
    run([*pip, "setuptools"])


def select(lock: str, version: str) -> str:
    """The part of a lock that a version of Python needs, without its conditions: pip would apply them to its own."""
    environment = {"python_version": version, "python_full_version": f"{version}.0"}
    requirements = re.split(r"^(?=\w)", lock, flags=re.MULTILINE)
    return "".join(_CONDITION.sub("", each) for each in requirements if _applies(each, environment))


def _applies(requirement: str, environment: dict[str, str]) -> bool:
    condition = _CONDITION.search(requirement)
    return condition is None or Marker(condition[1]).evaluate(environment)
