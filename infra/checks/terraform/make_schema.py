"""Write schema.json: what `terraform validate` needs to know about the providers that infra/aws uses.

    python -m infra.checks.terraform.make_schema

The providers are programs of several hundred megabytes. The npm packages of CDK Terrain (@cdktn) are generated from
their schemas and repeat them, except for descriptions, sensitivity, and numbers of blocks other than none, one or any.
This program downloads the packages with `npm pack` and keeps the resources, data sources and ephemeral resources that
infra/aws uses, in the format of `terraform providers schema -json`.
"""

import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from infra.checks.tools import ROOT

SCHEMA = Path(__file__).with_name("schema.json")

#: Providers by their name in Terraform: the npm package that has their schema.
PACKAGES = {"aws": "@cdktn/provider-aws@25.7.0", "random": "@cdktn/provider-random@15.0.1"}

_LICENSE = (
    "Taken from HashiCorp's providers by way of CDK Terrain's packages. This file is subject to the terms of the "
    "Mozilla Public License, v. 2.0: https://mozilla.org/MPL/2.0/"
)
#: What the packages call the kinds of objects: the folder's prefix, and the key in Terraform's schema.
_KINDS = {
    "resource": ("", "resource_schemas"),
    "data": ("data-", "data_source_schemas"),
    "ephemeral": ("ephemeral-", "ephemeral_resource_schemas"),
}
_TYPES: dict[str, Any] = {
    "string": "string",
    "boolean": "bool",
    "number": "number",
    "any": "dynamic",
    "stringList": ["list", "string"],
    "numberList": ["list", "number"],
    "stringMap": ["map", "string"],
}
_GETTERS: dict[str, Any] = {
    "this.getStringAttribute": "string",
    "this.getBooleanAttribute": "bool",
    "this.getNumberAttribute": "number",
    "this.getListAttribute": ["list", "string"],
    "cdktn.Fn.tolist(this.getListAttribute": ["set", "string"],
    "this.getNumberListAttribute": ["list", "number"],
    "cdktn.Fn.tolist(this.getNumberListAttribute": ["set", "number"],
    "this.getStringMapAttribute": ["map", "string"],
    "this.interpolationForAttribute": "dynamic",
    "new cdktn.StringMap": ["map", "string"],
}
#: The package lacks the statements of aws_wafv2_web_acl, because they are recursive. This resource has nearly the same:
#: it calls custom_key custom_keys, and requires aggregate_key_type.
_STATEMENTS = "aws_wafv2_web_acl_rule"
_RECURSIVE = {"and_statement", "or_statement", "not_statement", "scope_down_statement"}


@dataclass(frozen=True)
class _Member:
    """An attribute or a block of a class in a package."""

    name: str
    computed: bool
    optional: bool
    required: bool
    body: str

    @property
    def flags(self) -> dict[str, bool]:
        flags = {"required": self.required, "optional": self.optional, "computed": self.computed}
        return {name: True for name, value in flags.items() if value}


class Module:
    """The JavaScript module of one resource: its classes, and the functions that write their values as HCL."""

    def __init__(self, source: str) -> None:
        classes = re.findall(r"^class (\w+) extends \S+ \{\n(.*?)^\}\n", source, re.MULTILINE | re.DOTALL)
        self._classes = {name: body for name, body in classes if not name.endswith("List")}
        self._writers = dict(
            re.findall(r"^function (\w+)ToHclTerraform\(struct\) \{\n(.*?)^\}\n", source, re.MULTILINE | re.DOTALL)
        )
        self._main = next(name for name, body in classes if "static tfResourceType" in body)

    def block(self, name: str = "") -> dict[str, Any]:
        """Return the block of a class, by default the whole resource, as Terraform describes it."""
        attributes: dict[str, Any] = {}
        blocks: dict[str, Any] = {}
        written = self._written(name)
        for member in self._members(name):
            if member.name in _RECURSIVE:
                continue
            value, is_block, collection, storage = written.get(member.name, ("", "", "", ""))
            nested = _nested_class(member, storage)
            if nested and is_block == "true" and "ToHclTerraform, false)" not in value:
                blocks[member.name] = self._nested_block(member, nested, collection)
            elif nested:
                collection = collection or ("set" if re.search(r", true\);$", member.body, re.MULTILINE) else "list")
                attributes[member.name] = {"type": [collection, self._object(nested)], **member.flags}
            else:
                attributes[member.name] = {"type": _type(member, collection, storage), **member.flags}
            if "markWriteOnlyAttribute" in value:
                attributes[member.name]["write_only"] = True
        found = {"attributes": attributes, "block_types": blocks}
        return {part: contents for part, contents in found.items() if contents}

    def _nested_block(self, member: _Member, name: str, collection: str) -> dict[str, Any]:
        nesting = "single" if collection == "struct" else collection
        block: dict[str, Any] = {"nesting_mode": nesting, "block": self.block(name)}
        if member.required:
            block["min_items"] = 1
        if "OutputReference(" in member.body and nesting != "single":
            block["max_items"] = 1
        return block

    def _object(self, name: str) -> list[Any]:
        block = self.block(name)
        if "block_types" in block:
            raise ValueError(f"{name} is an attribute with blocks in it")
        return ["object", {key: attribute["type"] for key, attribute in block["attributes"].items()}]

    def _members(self, name: str) -> Iterator[_Member]:
        class_name = f"{name}OutputReference" if name else self._main
        if class_name not in self._classes:  # a provider's own block: what it requires is not said
            yield from (_Member(key, False, True, False, "") for key in self._written(name))
            return
        header = r"^    // (\w+) - computed: (\w+), optional: (\w+), required: (\w+)\n"
        parts = re.split(header, self._classes[class_name], flags=re.MULTILINE)[1:]
        for start in range(0, len(parts), 5):
            key, computed, optional, required, body = parts[start : start + 5]
            yield _Member(key, computed == "true", optional == "true", required == "true", body)

    def _written(self, name: str) -> dict[str, tuple[str, str, str, str]]:
        """What is written for each member: its value, whether it is a block, its collection, and its elements."""
        source = self._classes[self._main].partition("synthesizeHclAttributes()")[2]
        if name:
            source = self._writers.get(name[0].lower() + name[1:], "")
        entry = r'(\w+): \{\n\s+value: (.*),\n\s+isBlock: (\w+),\n\s+type: "(\w+)",\n\s+storageClassType: "(\w+)",'
        return {found[0]: found[1:] for found in re.findall(entry, source)}


def _nested_class(member: _Member, storage: str) -> str | None:
    """The class of the objects in an attribute or block; None if it has plain values."""
    created = re.search(r"= new (?:index_\d\.)?(\w+?)(?:List|OutputReference)\(this, ", member.body)
    if created:
        return created[1]
    return storage.removesuffix("List") if storage[:1].isupper() else None


def _type(member: _Member, collection: str, storage: str) -> Any:
    if storage:
        found = _TYPES[storage]
        return ["set", found[1]] if collection == "set" else found
    getter = re.search(r"(?:return|=) (.*)\((?:this, )?['\"]\w+['\"]", member.body)
    if getter is None:
        raise ValueError(f"{member.name} has no type: {member.body}")
    return _GETTERS[getter[1]]


def find_used(folder: Path) -> list[tuple[str, str]]:
    """Return each kind and type that a folder's files use: ("resource", "aws_lb")."""
    text = "\n".join(path.read_text() for path in folder.glob("*.tf"))
    return sorted(set(re.findall(r'^(resource|data|ephemeral) "(\w+)"', text, re.MULTILINE)))


def read_provider(name: str, package: Path, used: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the schema of a provider, from its unpacked package, with what is used of it."""
    provider = Module((package / "lib/provider/index.js").read_text())
    schema: dict[str, Any] = {"provider": {"version": 0, "block": provider.block()}}
    for kind, type_ in used:
        prefix, key = _KINDS[kind]
        if type_.partition("_")[0] == name:
            block = _find_module(package, prefix, type_).block()
            if type_ == "aws_wafv2_web_acl":
                statement = _find_module(package, "", _STATEMENTS).block()["block_types"]["statement"]
                rule = block["block_types"]["rule"]["block"]
                del rule["attributes"]["statement"]
                rule["block_types"]["statement"] = statement | {"min_items": 1, "max_items": 1}
            schema.setdefault(key, {})[type_] = {"version": 0, "block": block}
    return schema


def _find_module(package: Path, prefix: str, type_: str) -> Module:
    """The folder's name has the provider's name or not, as it suited the generator."""
    short = type_.partition("_")[2]
    for name in (short, type_):
        folder = package / "lib" / (prefix + name).replace("_", "-")
        source = "".join(path.read_text() for path in sorted(folder.rglob("*.js")))
        if f'static tfResourceType = "{type_}"' in source:
            return Module(source)
    raise SystemExit(f"{package} has no {prefix}{type_}. Is its name right?")


def main() -> int:
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is not installed")
    used = find_used(ROOT / "infra/aws")
    schemas = {}
    with TemporaryDirectory() as name:
        for provider, package in PACKAGES.items():
            folder = Path(name) / provider
            folder.mkdir()
            subprocess.run([npm, "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
            with tarfile.open(next(folder.glob("*.tgz"))) as archive:
                archive.extractall(folder, filter="data")
            address = f"registry.terraform.io/hashicorp/{provider}"
            schemas[address] = read_provider(provider, folder / "package", used)
    contents = {"comment": _LICENSE, "format_version": "1.0", "sources": PACKAGES, "provider_schemas": schemas}
    SCHEMA.write_text(json.dumps(contents, separators=(",", ":"), sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
