"""Resolves the combinations of JSON schemas: `$ref`, `allOf`, `anyOf`, `oneOf`, `if`, `dependentSchemas`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from shared.providers.json_schema import JsonSchema as Schema
from shared.providers.json_schema import validate

#: How much is done for one schema: about a second.
MAX_STEPS = 10_000
#: Where the schema stands in documents that check a part of it.
_ROOT = "#/$defs/root"
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_ALTERNATIVES = ("anyOf", "oneOf")
#: Resolved here for good. What stays in plain schemas (`oneOf`, `if` …) is to be checked.
_RESOLVED = frozenset({*_REFERENCES, "allOf", "anyOf"})
#: Keywords whose keys are names, and keywords whose values are data, not schemas.
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_DATA = frozenset({"const", "enum", "default", "examples", "required", "dependentRequired"})


class TooComplexError(Exception):
    """The limit of steps is reached."""


class Resolver:
    """The parts of one schema. Work on them is counted, so that no schema takes for ever."""

    def __init__(self, schema: Schema) -> None:
        #: The schema, with references that are valid within `document`.
        self.root: Schema = _moved(schema, schema.get("$id", "") if isinstance(schema, Mapping) else "")
        self._steps_left = MAX_STEPS
        self._anchors = dict(_anchors(self.root))

    def spend(self, steps: int = 1) -> None:
        """Count work. Raises TooComplexError when it is too much."""
        self._steps_left -= steps
        if self._steps_left < 0:
            raise TooComplexError

    def matches(self, pattern: str, name: str) -> bool:
        """Whether a pattern matches, by the rules of JSON schemas and within their limit of time."""
        self.spend(5)
        return validate(name, {"pattern": pattern}) is None

    def document(self, schemas: Sequence[Schema]) -> dict[str, Any]:
        """A schema for values that satisfy all of these parts."""
        parts = [{"$ref": _ROOT} if each is self.root else each for each in schemas]
        return {"$defs": {"root": self.root}, "allOf": parts}

    def alternatives(
        self, schemas: Sequence[Schema], done: tuple[Mapping[str, Any], ...] = ()
    ) -> Iterator[tuple[Mapping[str, Any], ...]]:
        """Yield lists of schemas without combinations. A value that satisfies one of the lists satisfies these schemas.

        Not for certain: it may satisfy several schemas of a `oneOf`, for instance.
        """
        self.spend()
        if not schemas:
            yield done
            return
        first, *rest = schemas
        if first is False:
            return
        if first is True:
            yield from self.alternatives(rest, done)
            return
        plain = {key: value for key, value in first.items() if key not in _RESOLVED}
        for parts in self._chosen(first):
            yield from self.alternatives([*parts, *rest], (*done, plain))

    def _chosen(self, schema: Mapping[str, Any]) -> Iterator[list[Schema]]:
        """Yield the schemas that must hold as well, for each choice that the combinations leave."""
        always = [self._target(schema[key]) for key in _REFERENCES if key in schema]
        always += schema.get("allOf", ())
        # Building with the schemas of properties that may be absent costs little, and spares searching.
        always += [each for name, each in schema.get("dependentSchemas", {}).items() if name in _named(schema)]
        choices: list[list[Schema]] = [list(schema[key]) for key in _ALTERNATIVES if key in schema]
        if "if" in schema:
            both = {"allOf": [schema["if"], schema.get("then", True)]}
            choices.append([both, schema.get("else", True)])
        yield from self._products(choices, always)

    def _products(self, choices: Sequence[Sequence[Schema]], chosen: list[Schema]) -> Iterator[list[Schema]]:
        self.spend()
        if not choices:
            yield chosen
            return
        for each in choices[0]:
            yield from self._products(choices[1:], [*chosen, each])

    def _target(self, reference: str) -> Schema:
        """The schema that a reference means; False if there is none."""
        if reference in self._anchors:
            return self._anchors[reference]
        if not reference.startswith(_ROOT):
            return False
        found: Any = self.root
        for part in reference.removeprefix(_ROOT).split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, Mapping) and key in found:
                found = found[key]
            else:
                return False
        return found if isinstance(found, dict | bool) else False


def _named(schema: Mapping[str, Any]) -> set[str]:
    return {*schema.get("properties", ()), *schema.get("required", ())}


def _moved(part: Any, own_id: str) -> Any:
    """A part of the schema as it is written when the schema stands at _ROOT of another document."""
    if isinstance(part, list):
        return [_moved(each, own_id) for each in part]
    if not isinstance(part, Mapping):
        return part
    moved = {}
    for key, value in part.items():
        if key in _DATA:
            moved[key] = value
        elif key in _NAMED and isinstance(value, Mapping):
            moved[key] = {name: _moved(each, own_id) for name, each in value.items()}
        elif key not in ("$schema", "$id"):
            moved[key] = _moved(value, own_id)
    for key in _REFERENCES:
        if isinstance(reference := part.get(key), str):
            local = reference.removeprefix(own_id) or "#"
            moved[key] = _ROOT + local[1:] if local == "#" or local.startswith("#/") else local
    return moved


def _anchors(part: Any) -> Iterator[tuple[str, Schema]]:
    """Yield the parts with names of their own, by the references to them."""
    if isinstance(part, list):
        for each in part:
            yield from _anchors(each)
    elif isinstance(part, dict):
        for key in ("$anchor", "$dynamicAnchor"):
            if isinstance(part.get(key), str):
                yield f"#{part[key]}", part
        for each in part.values():
            yield from _anchors(each)
