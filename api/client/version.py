"""The version of Promptwire that this client belongs to.

This repeats shared/version.py, because the client imports nothing else of the project.
"""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PYPROJECT = Path(__file__).parent.parent.parent / "pyproject.toml"


def get_version() -> str:
    """Return the version of the checkout, or else of the installed package; "unknown" for a copy of this folder."""
    if _PYPROJECT.is_file():
        project = tomllib.loads(_PYPROJECT.read_text("utf-8")).get("project", {})
        if project.get("name") == "promptwire":
            return str(project["version"])
    try:
        return version("promptwire")
    except PackageNotFoundError:
        return "unknown"
