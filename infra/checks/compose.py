"""docker-compose.yml as Compose itself resolves it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from infra.checks.tools import TOOLS, run_tool

_FILE = "docker-compose.yml"


class ComposeError(Exception):
    """Compose rejects the file; the message is Compose's own."""


def find_compose(tools: Path) -> Path:
    """The Compose binary in an environment. The wrapper in bin/ does not do: it exits with 0 whatever Compose does."""
    installed = tools.glob("lib/python*/site-packages/compose/docker-compose")
    return next(installed, tools / "docker-compose")


@contextmanager
def compose_folder(root: Path, dotenv: str) -> Iterator[Path]:
    """A temporary folder with the compose file of `root` and a .env with this text."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / _FILE).write_text((root / _FILE).read_text())
        (folder / ".env").write_text(dotenv)
        yield folder


def read_compose(root: Path, variables: Mapping[str, str], *, tools: Path = TOOLS) -> dict[str, Any]:
    """Return the compose file with its variables, anchors and short forms expanded.

    A service's `environment` is what the file sets: the contents of its `env_file` are left out.

    Raises:
        ComposeError: Compose rejects the file.
        ToolMissingError: Compose is not installed in `tools`.
    """
    options = ["config", "--format=json", "--no-env-resolution"]
    with compose_folder(root, "".join(f"{name}={value}\n" for name, value in variables.items())) as folder:
        result = run_tool([str(find_compose(tools)), f"--project-directory={folder}", *options], folder)
    if result.returncode != 0:
        raise ComposeError(result.stderr.strip())
    # Compose escapes dollars, so that it could read its output again.
    resolved: dict[str, Any] = json.loads(result.stdout.replace("$$", "$"))
    return resolved
