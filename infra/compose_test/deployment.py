"""A copy of the repository, deployed by the commands of the documentation."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.checks.tools import ROOT
from infra.compose_test.engine import Engine, EngineError

_NOT_COPIED = (".git", ".venv*", ".local", ".env", ".*_cache", "__pycache__", "node_modules")


@dataclass(frozen=True)
class Service:
    """A container as Compose lists it."""

    name: str
    container: str
    health: str


class Deployment:
    """A folder with the repository. Its commands run with the variables of an operator's shell."""

    def __init__(self, folder: Path, engine: Engine, variables: dict[str, str]) -> None:
        self.folder = folder
        self._engine = engine
        # Some shells export HOST, which must have no effect.
        engine.variables |= {"HOST": "myhost", **variables}
        self.api_port = int(variables.get("PORT", "8000"))
        self.flower_port = int(variables.get("FLOWER_PORT", "5555"))
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*_NOT_COPIED))

    def drop_registry_references(self) -> None:
        """Remove what only a registry can resolve: the digest of the base image, and BuildKit's newest syntax."""
        for dockerfile in self.folder.glob("Dockerfile.*"):
            text = re.sub(r"^# syntax=.*\n", "", dockerfile.read_text())
            dockerfile.write_text(re.sub(r"^(FROM \S+)@sha256:[0-9a-f]{64}", r"\1", text, flags=re.MULTILINE))

    def run(self, command: str, *, check: bool = True) -> str:
        """Run a line of shell. Return its output, error output included. Raises EngineError."""
        line = ["bash", "-euo", "pipefail", "-c", command]
        return self._engine.run(line, cwd=self.folder, check=check).stdout

    def type(self, command: str, answers: list[str], *, seconds: float = 300) -> str:
        """Run a line of shell in a terminal, and type an answer at each `: `. Raises EngineError."""
        own, terminal = pty.openpty()
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=self.folder, env=self._engine.variables, start_new_session=True,
            stdin=terminal, stdout=terminal, stderr=terminal,
        )  # fmt: skip
        os.close(terminal)
        shown, question, left, deadline = "", "", list(answers), time.monotonic() + seconds
        try:
            while chunk := _read(own, deadline):
                shown, question = shown + chunk, question + chunk
                if left and question.endswith(": "):
                    os.write(own, left.pop(0).encode() + b"\n")
                    question = ""
            if process.wait(timeout=max(1.0, deadline - time.monotonic())) != 0 or left:
                raise EngineError(f"{command}:\n{shown}")
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"{command} took too long:\n{shown}") from error
        finally:
            process.kill()
            process.wait()
            os.close(own)
        return shown

    def configure(self, **variables: str) -> None:
        """Set variables in .env, where they may stand commented out."""
        path = self.folder / ".env"
        lines = path.read_text().splitlines()
        kept = [line for line in lines if line.removeprefix("# ").partition("=")[0] not in variables]
        path.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in variables.items()), ""]))

    def services(self, *, stopped: bool = False) -> list[Service]:
        """The containers that run; with `stopped` also those that have ended."""
        listed = self.run(f"docker compose ps --format json --no-trunc {'--all' if stopped else ''}")
        # Compose before 2.21 printed one array.
        found: list[dict[str, Any]] = []
        for line in listed.splitlines():
            loaded = json.loads(line)
            found += loaded if isinstance(loaded, list) else [loaded]
        return [Service(each["Service"], each["ID"], each["Health"]) for each in found]

    def wait_until_healthy(self, names: set[str], seconds: float) -> None:
        """Wait until these services, and no others, run and are healthy. Raises EngineError."""
        deadline = time.monotonic() + seconds
        while True:
            services = self.services()
            if {each.name for each in services} == names and all(each.health == "healthy" for each in services):
                return
            if time.monotonic() > deadline:
                raise EngineError(f"Not healthy after {seconds:.0f} s: {services}")
            time.sleep(0.5)


def _read(terminal: int, deadline: float) -> str:
    """What a terminal shows next; empty once all its programs have ended, or the time is up."""
    if not select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        return ""
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # how Linux reports the end
        return ""
