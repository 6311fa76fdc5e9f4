"""The instructions of a Dockerfile."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Dockerfile:
    """A Dockerfile's stages: each is a list of instructions, as a name in capitals and its arguments."""

    stages: list[list[tuple[str, str]]]

    @classmethod
    def read(cls, path: Path) -> "Dockerfile":
        text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
        stages: list[list[tuple[str, str]]] = []
        for line in filter(str.strip, text.splitlines()):
            name, _, arguments = line.strip().partition(" ")
            if name.upper() == "FROM":
                stages.append([])
            if stages:
                stages[-1].append((name.upper(), arguments.strip()))
        return cls(stages)

    def all(self, name: str) -> list[str]:
        """The arguments of every instruction of this name in the last stage."""
        return [arguments for each, arguments in self.stages[-1] if each == name]

    def last(self, name: str) -> str:
        """The arguments of the last instruction of this name, which is the one that counts; empty if there is none."""
        return (self.all(name) or [""])[-1]

    @property
    def command(self) -> list[str]:
        return _exec_form(self.last("CMD"))

    @property
    def healthcheck(self) -> list[str]:
        return _exec_form(self.last("HEALTHCHECK").partition("CMD")[2])

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the first and the last stage set with ENV."""
        lines = [arguments for stage in (self.stages[0], self.stages[-1]) for name, arguments in stage if name == "ENV"]
        return dict(pair.split("=", 1) for line in lines for pair in shlex.split(line))


def _exec_form(arguments: str) -> list[str]:
    """A command in exec form; empty for the shell form, in which a shell would keep signals from the process."""
    try:
        command = json.loads(arguments)
    except ValueError:
        return []
    return command if isinstance(command, list) else []
