"""The blocks of a Terraform folder, parsed by python-hcl2, and the references between them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hcl2

#: Kinds of blocks, and the number of labels of each.
_LABELS = {"variable": 1, "output": 1, "provider": 1, "resource": 2, "data": 2, "ephemeral": 2}
_TYPE = r"(?:aws|random)_\w+"
_REFERENCE = re.compile(rf"(?<![\w.\"-])(?:(var|local)\.(\w+)|(data|ephemeral)\.({_TYPE})\.(\w+)|({_TYPE})\.(\w+))")


@dataclass(frozen=True)
class Block:
    """A top-level block. Its address is what expressions use: `var.name`, `aws_lb.this`, `data.aws_region.here`."""

    kind: str
    address: str
    body: dict[str, Any]

    @property
    def type(self) -> str:
        """The type of a resource, such as `aws_lb`."""
        return self.address.split(".")[-2]

    def text(self, name: str) -> str:
        """An argument, without quotation marks if it is a plain string; empty if it is not set."""
        return plain(self.body.get(name, ""))

    def nested(self, name: str) -> list[dict[str, Any]]:
        """The nested blocks of this name."""
        found: list[dict[str, Any]] = self.body.get(name, [])
        return found


class Configuration:
    """All *.tf files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.blocks: list[Block] = []
        self.locals: dict[str, Any] = {}
        for file in sorted(folder.glob("*.tf")):
            parsed = _parse(file.read_text())
            for body in parsed.get("locals", []):
                self.locals |= _without_metadata(body)
            for kind, labels in _LABELS.items():
                self.blocks += [block for found in parsed.get(kind, []) for block in _blocks(kind, labels, found)]

    def find(self, kind: str, type_: str = "") -> list[Block]:
        """The blocks of a kind, and of a resource type if one is given."""
        return [block for block in self.blocks if block.kind == kind and type_ in ("", block.address.split(".")[-2])]

    def references(self) -> Iterator[tuple[str, str]]:
        """Pairs of addresses: a block or local, and one that it refers to."""
        named = [(block.address, block.body) for block in self.blocks]
        named += [(f"local.{name}", value) for name, value in self.locals.items()]
        for address, value in named:
            for target in references(value):
                yield address, target


def references(value: object) -> set[str]:
    """The addresses in a value's expressions."""
    return {
        ".".join(part for part in found if part)
        for expression in expressions(value)
        for found in _REFERENCE.findall(expression)
    }


def expressions(value: object) -> Iterator[str]:
    """The expressions in a value: the whole value, or the `${…}` in a plain string."""
    if isinstance(value, dict):
        for key, part in value.items():
            if not key.startswith("__"):
                yield from expressions(key if "${" in key else "")
                yield from expressions(part)
    elif isinstance(value, list):
        for part in value:
            yield from expressions(part)
    elif isinstance(value, str):
        yield from re.findall(r"\$\{(.*?)\}", value, re.DOTALL) if value.startswith('"') else [value]


def plain(value: object) -> str:
    """A string without quotation marks, an expression without `${…}`, or the `str` of anything else."""
    text = str(value)
    if text.startswith('"'):
        return text.removeprefix('"').removesuffix('"')
    return text.removeprefix("${").removesuffix("}") if text.startswith("${") else text


@cache
def _parse(text: str) -> dict[str, Any]:
    """Parse a file. Cached, because many test configurations differ in one file only."""
    parsed: dict[str, Any] = hcl2.loads(text)
    return parsed


def _blocks(kind: str, labels: int, found: dict[str, Any]) -> Iterator[Block]:
    prefix = {"variable": "var.", "data": "data.", "ephemeral": "ephemeral.", "resource": ""}.get(kind, f"{kind}.")
    for first, rest in _without_metadata(found).items():
        if labels == 1:
            yield Block(kind, prefix + plain(first), rest)
            continue
        for second, body in _without_metadata(rest).items():
            yield Block(kind, f"{prefix}{plain(first)}.{plain(second)}", body)


def _without_metadata(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if not name.startswith("__")}
