"""What the Dockerfiles and the compose file say, as far as others depend on it."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?::?(?P<kind>[-?])(?P<text>(?:[^{}]|\{[^{}]*\})*))?\})")


class MissingVariableError(Exception):
    """A variable that the compose file insists on is not set; the message is the file's own."""


@dataclass(frozen=True)
class Dockerfile:
    """A Dockerfile's instructions, a list for each stage, each with its name in capitals and its arguments."""

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
        """The arguments of each such instruction of the last stage."""
        return [arguments for each, arguments in self.stages[-1] if each == name]

    def last(self, name: str) -> str:
        """The arguments of the one that counts; empty if there is none."""
        return (self.all(name) or [""])[-1]

    @property
    def command(self) -> list[str]:
        return _exec_form(self.last("CMD"))

    @property
    def healthcheck(self) -> list[str]:
        return _exec_form(self.last("HEALTHCHECK").partition("CMD")[2])

    @property
    def environment(self) -> dict[str, str]:
        """What the last stage and those that it is built on set, but for what pip and Python read."""
        lines = [arguments for stage in (self.stages[0], self.stages[-1]) for name, arguments in stage if name == "ENV"]
        return dict(pair.split("=", 1) for line in lines for pair in shlex.split(line))


def _exec_form(arguments: str) -> list[str]:
    """A command that is started without a shell, which would keep signals to itself; empty if it is not one."""
    try:
        command = json.loads(arguments)
    except ValueError:
        return []
    return command if isinstance(command, list) else []


def read_compose(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """The compose file with its variables put in.

    Raises:
        MissingVariableError: one that it insists on is not set.
    """
    loaded: dict[str, Any] = yaml.safe_load(interpolate(path.read_text(), environment))
    return loaded


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """Puts variables in as Compose does: `${X}`, `${X:-otherwise}`, `${X:?message}`; `$$` is a dollar."""

    def value(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        given = environment.get(found["name"], "")
        if given or found["kind"] is None:
            return given
        if found["kind"] == "?":
            raise MissingVariableError(f"{found['name']}: {found['text']}")
        return interpolate(found["text"], environment)

    return _VARIABLE.sub(value, text)


def variables(text: str) -> set[str]:
    """The names of the variables that a compose file reads."""
    return set(re.findall(r"(?<!\$)\$\{(\w+)", text))
