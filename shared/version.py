"""Promptwire's version, which is written in pyproject.toml and nowhere else."""

import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


@cache
def get_version() -> str:
    """Return the version of this checkout or image, or else of the installed package; "unknown" if there is neither."""
    if _PYPROJECT.is_file():
        project = tomllib.loads(_PYPROJECT.read_text("utf-8")).get("project", {})
        if project.get("name") == "promptwire":
            return str(project["version"])
    try:
        return version("promptwire")
    except PackageNotFoundError:
        return "unknown"
