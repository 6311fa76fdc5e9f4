"""The programs that the checks run, from `.venv-infra` (requirements-infra.txt)."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv-infra"


class ToolMissingError(Exception):
    """The tool is not installed on this machine; the message names it."""


def run_tool(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool in a folder, without this shell's variables, which Compose would read.

    Raises:
        ToolMissingError: the program cannot be run.
    """
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    try:
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ToolMissingError(f"{command[0]}: {error.strerror}") from error
