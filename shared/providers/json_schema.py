"""JSON Schemas that users send: for the answer to a prompt, and for the parameters of its tools.

They are input of strangers, and so are the answers that are checked with them. So no reference leaves the document,
patterns cannot backtrack without end, and size, depth and the work behind local references are bounded, and so is the
work for an answer. Draft 2020-12, unless `$schema` names another one.
"""

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

import jsonschema_rs

from shared.errors import InvalidFieldsError

MAX_CHARACTERS = 100_000  #: of a schema as JSON
MAX_DEPTH = 64  #: of a schema and of an instance: objects and arrays in each other
#: How many objects a schema has with its references written out. Without a bound, thirty definitions that each refer
#: twice to the one before would keep a processor busy for hours.
MAX_EXPANDED = 500_000
#: An answer is checked if its values, times the schema's parts, are no more than this: a second or two at worst.
MAX_CHECKS = 100_000_000
#: What is wrong with it is said if the library makes about as many errors at most, a second or two at worst. It makes
#: one for each alternative, and at each level of an answer again for each reference of a recursive schema.
MAX_DESCRIBED = 200_000
MAX_MESSAGE_LENGTH = 300
#: Patterns without lookaround or backreferences take linear time anyway. The others, which pydantic writes for
#: decimals, for instance, may go back this often before they count as not matching.
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000, size_limit=1_000_000)

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # an escaped one, after no other backslash or an even number of them

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_REFERENCE = re.compile(r'"\$(?:ref|dynamicRef|recursiveRef)":')

JsonSchema = dict[str, Any] | bool


class InvalidSchemaError(InvalidFieldsError):
    """This is not a valid JSON Schema."""


def check_schema(schema: object, field: str = "schema") -> None:
    """Check a schema that came with a request. `field` is its place in the body, for the error.

    Raises:
        InvalidSchemaError: it is not a valid JSON Schema, too large, or refers to another document.
    """
    try:
        _validator(_as_json(schema))
    except RecursionError:
        raise InvalidSchemaError("must be a valid JSON Schema: it is nested too deeply", [field]) from None
    except ValueError as error:
        raise InvalidSchemaError(f"must be a valid JSON Schema: {_describe(error)}", [field]) from None


def validate(instance: object, schema: JsonSchema) -> str | None:
    """What is wrong with the instance, for people; None if it is valid against the schema.

    Raises:
        ValueError: the schema is not valid; `check_schema` would have refused it.
    """
    compiled = _validator(_as_json(schema))
    values, depth = _measure(instance)
    checks = values * compiled.size
    if checks > MAX_CHECKS:
        return "it is too large to be checked against its schema"
    try:
        if compiled.validator.is_valid(instance):
            return None
        if checks * float(compiled.recursive_references or 1) ** min(depth, MAX_DEPTH) > MAX_DESCRIBED:
            return "it is not valid, and too large to say where"
        compiled.validator.validate(instance)
    except ValueError as error:  # not valid, nested too deeply, or with lone surrogates
        return _describe(error)
    return None


class _Compiled(NamedTuple):
    """A schema that can be checked against, and what that costs."""

    validator: jsonschema_rs.Validator
    size: int  #: objects and arrays, with references written out
    recursive_references: int  #: 0 if no reference leads back to itself; else the number of all references


@lru_cache(maxsize=32)
def _validator(schema: str) -> _Compiled:
    """The compiled schema. The prompts of a batch often have the same one."""
    parsed = json.loads(schema)
    if not isinstance(parsed, dict | bool):
        raise ValueError("it is neither an object nor a boolean")  # noqa: TRY004 - as the library does
    size, is_recursive = _check_expansion(parsed)
    validator = jsonschema_rs.validator_for(parsed, offline=True, pattern_options=_PATTERNS)
    return _Compiled(validator, size, _REFERENCE.subn("", schema)[1] if is_recursive else 0)


def _measure(instance: object) -> tuple[int, int]:
    """How many values the instance has, and how deep they are in each other."""
    level, values, depth = [instance], 0, 0
    while level:
        values, depth = values + len(level), depth + 1
        level = [child for node in level for child in _values(node)]
    return values, depth


def _values(node: object) -> Iterable[object]:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _as_json(schema: object) -> str:
    text = json.dumps(schema, sort_keys=True, allow_nan=False)
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has over {MAX_CHARACTERS} characters")
    if _NUL.search(text):
        raise ValueError("it has a NUL character")
    return text


def _check_expansion(schema: JsonSchema) -> tuple[int, bool]:
    """The size of the schema with its references written out, and whether one of them leads back to itself.

    Raises:
        ValueError: the schema is too deep, or has too much behind its references.
    """
    sizes: dict[str, int] = {}
    is_recursive = False

    def expanded_size(node: object, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise ValueError(f"it is more than {MAX_DEPTH} levels deep")
        size = 1 + sum(expanded_size(child, depth + 1) for child in _values(node) if isinstance(child, dict | list))
        if isinstance(node, dict):
            size += sum(size_behind(node[key]) for key in _REFERENCES if key in node)
        if size > MAX_EXPANDED:
            raise ValueError(f"it has over {MAX_EXPANDED} parts with its references written out")
        return size

    def size_behind(reference: object) -> int:
        nonlocal is_recursive
        if not isinstance(reference, str):
            return 0
        if reference in sizes:
            is_recursive |= not sizes[reference]
        else:
            sizes[reference] = 0  # a reference to itself ends here: validating follows it only as deep as the instance
            sizes[reference] = expanded_size(_find(schema, reference), 0)
        return sizes[reference]

    return expanded_size(schema, 0), is_recursive


def _find(schema: JsonSchema, reference: str) -> object:
    """What a reference in the document refers to. An unresolved name counts as the whole document, the largest part."""
    found: Any = schema
    for part in unquote(reference.partition("#/")[2]).split("/") if "#/" in reference else ():
        key = part.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, dict) else None
    return schema if found is None else found


def _describe(error: Exception) -> str:
    message = error.message if isinstance(error, jsonschema_rs.ValidationError) else str(error)
    place = "/".join(map(str, getattr(error, "instance_path", ())))
    text = f"{place}: {message}" if place else message
    return text if len(text) <= MAX_MESSAGE_LENGTH else f"{text[: MAX_MESSAGE_LENGTH - 1]}…"
