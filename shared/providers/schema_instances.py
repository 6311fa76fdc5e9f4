"""Makes a valid instance of a JSON schema: what a model with structured outputs could answer. No model is needed.

The instance is the same for each call. It is built for drafts 2019-09 and 2020-12, and checked by `json_schema`.

How it works: a value must satisfy a list of schemas at once. `Resolver` turns a list with `$ref`, `allOf`, `anyOf` and
the like into alternative lists of plain schemas, and the keywords of a plain list say how a value is built. Where
building alone does not make a value valid, such as below `not`, values are tried one after the other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count, islice
from typing import Any

from shared.errors import ProviderError
from shared.providers.json_schema import JsonSchema as Schema
from shared.providers.json_schema import validate
from shared.providers.pattern_strings import matching
from shared.providers.schema_alternatives import Resolver, TooComplexError
from shared.providers.schema_scalars import MAX_TRIES, Plain, least, most, numbers, strings

#: Values inside values: flat ones are looked for first. Otherwise a schema of trees, whose first alternative is a node
#: with two children, would grow to a million leaves before it comes to an end.
_MAX_DEPTHS = (3, 6, 24)
#: Deeper than this, only what is required is made.
_OPTIONAL_DEPTH = 3

_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
#: The types that keywords speak of, for schemas without a `type`.
_KEYWORDS: Mapping[str, Sequence[str]] = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "patternProperties", "propertyNames"),
    "array": ("items", "prefixItems", "contains", "minItems", "maxItems", "uniqueItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
#: Keywords of which a value that is built may still break one.
_CHECKED = frozenset(
    {"not", "oneOf", "if", "enum", "const", "pattern", "contains", "propertyNames", "patternProperties"}
    | {"dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems"}
)
#: Keywords of an `enum` or a `const` that needs no check.
_OF_CHOICES = frozenset({"enum", "const", "type", "title", "description", "default", "examples"})


class UnsatisfiableSchemaError(ProviderError):
    """No valid instance of a schema was found: there is none, or it is too complex for this module."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The simulated model finds no valid answer for this JSON schema: {reason}.", retryable=False)


def instance(schema: Schema) -> Any:
    """Return a valid instance of the schema.

    Raises:
        UnsatisfiableSchemaError: none was found within limits of time, depth and size.
    """
    reason = "nothing satisfies it"
    for max_depth in _MAX_DEPTHS:
        resolver = Resolver(schema)
        try:
            for value in islice(_Instances(resolver, max_depth).of([resolver.root], 0), MAX_TRIES):
                if (error := validate(value, schema)) is None:
                    return value
                reason = error.rstrip(".")
        except (TooComplexError, RecursionError, ValueError, OverflowError):
            reason = "it is too complex"
    raise UnsatisfiableSchemaError(reason)


class _Instances:
    """Yields values that satisfy all schemas of a list, the most telling first.

    Args:
        max_depth: How deep values may be in each other.
    """

    def __init__(self, resolver: Resolver, max_depth: int) -> None:
        self._resolver = resolver
        self._max_depth = max_depth

    def of(self, schemas: Sequence[Schema], depth: int) -> Iterator[Any]:
        """Yield values; none if there is none, or it would be too deep."""
        if depth > self._max_depth:
            return
        alternatives: Iterable[Plain] = self._resolver.alternatives(schemas)
        if depth > _OPTIONAL_DEPTH:  # flat ones first, so that what is recursive comes to an end
            alternatives = sorted(alternatives, key=lambda plain: _types(plain)[:1] in (["object"], ["array"]))
        for plain in alternatives:
            is_checked = any(_CHECKED & each.keys() for each in plain) and not _is_choice_of_texts(plain)
            for value in islice(self._plain(plain, depth), MAX_TRIES):
                self._resolver.spend()
                if not is_checked or self._resolver.is_valid(value, schemas):
                    yield value

    def _plain(self, plain: Plain, depth: int) -> Iterator[Any]:
        """Yield values that satisfy schemas without combinations."""
        for each in plain:
            if "const" in each:
                yield each["const"]
                return
            if "enum" in each:
                yield from each["enum"]
                return
        kinds = [self._of_type(name, plain, depth) for name in _types(plain)]
        firsts = [(value, rest) for rest in kinds if (value := next(rest, _NONE)) is not _NONE]
        yield from (value for value, _ in firsts)
        yield from chain.from_iterable(rest for _, rest in firsts)

    def _of_type(self, name: str, plain: Plain, depth: int) -> Iterator[Any]:
        if name == "object":
            return self._objects(plain, depth)
        if name == "array":
            return self._arrays(plain, depth)
        if name == "string":
            return strings(plain)
        if name in ("integer", "number"):
            return numbers(plain, is_integer=name == "integer")
        return iter((True, False) if name == "boolean" else (None,))

    # Objects

    def _objects(self, plain: Plain, depth: int) -> Iterator[dict[str, Any]]:
        required, declared = _required(plain), _declared(plain)
        at_least, at_most = most(plain, "minProperties") or 0, least(plain, "maxProperties")
        must = set(required)
        optional = [name for name in declared if name not in must]
        choices = [optional, []] if depth < _OPTIONAL_DEPTH else [[], optional]
        choices += [[name] for name in optional]
        for chosen in choices:
            for made in self._object(plain, required, chosen, depth):
                if at_most is not None and len(made) > at_most:
                    dropped = [name for name in reversed(made) if name not in required][: len(made) - int(at_most)]
                    made = {name: value for name, value in made.items() if name not in dropped}
                self._fill(made, plain, at_least, depth)
                yield made

    def _object(
        self, plain: Plain, required: Sequence[str], optional: Sequence[str], depth: int
    ) -> Iterator[dict[str, Any]]:
        """Yield objects with these properties, in the schema's order, without optional ones that cannot be made."""
        must, may = set(required), set(optional)
        names = [name for name in dict.fromkeys([*_declared(plain), *required]) if name in must or name in may]
        made: dict[str, Any] = {}
        others: dict[str, Iterator[Any]] = {}
        for name in names:
            values = self.of(self._property(plain, name), depth + 1)
            if (value := next(values, _NONE)) is not _NONE:
                made[name], others[name] = value, values
            elif name in must:
                return
        yield dict(made)
        for name, values in others.items():
            for value in islice(values, 3):
                yield {**made, name: value}

    def _fill(self, made: dict[str, Any], plain: Plain, at_least: int, depth: int) -> None:
        """Add properties until there are enough: declared ones, those of patterns, then any."""
        patterns = chain.from_iterable(each.get("patternProperties", ()) for each in plain)
        rules = [each["propertyNames"] for each in plain if "propertyNames" in each]
        ruled = self.of([{"type": "string"}, *rules], depth + 1) if rules else iter(())
        patterned = [name for pattern in patterns for name in matching(pattern)]
        numbered = (f"{name}{number}" for name in patterned[:1] for number in range(int(at_least)))
        any_names = (f"property{number}" for number in count(1))
        for name in islice(chain(_declared(plain), ruled, patterned, numbered, any_names), int(at_least) + MAX_TRIES):
            if len(made) >= at_least:
                return
            self._resolver.spend()
            if (
                name not in made
                and (value := next(self.of(self._property(plain, name), depth + 1), _NONE)) is not _NONE
            ):
                made[name] = value

    def _property(self, plain: Plain, name: str) -> list[Schema]:
        """The schemas that the value of a property must satisfy."""
        found: list[Schema] = []
        for each in plain:
            own = [each["properties"][name]] if name in each.get("properties", ()) else []
            patterns = each.get("patternProperties", {}).items()
            own += [schema for pattern, schema in patterns if self._resolver.matches(pattern, name)]
            found += own or [each.get("additionalProperties", True)]
        return found

    # Arrays

    def _arrays(self, plain: Plain, depth: int) -> Iterator[list[Any]]:
        at_least, at_most = most(plain, "minItems") or 0, least(plain, "maxItems")
        contained = [each for each in plain if "contains" in each]
        prefixed = max((len(each.get("prefixItems", ())) for each in plain), default=0)
        is_unique = any(each.get("uniqueItems") for each in plain)
        needed = max([at_least, *(each.get("minContains", 1) for each in contained)])
        usual = max(needed, prefixed, 1) if depth < _OPTIONAL_DEPTH else needed
        for length in dict.fromkeys((usual, needed, needed + len(contained), needed + 1, prefixed)):
            if length < at_least or (at_most is not None and length > at_most):
                continue
            contains = [each["contains"] for each in contained for _ in range(int(each.get("minContains", 1)))]
            if (made := self._array(plain, int(length), contains, is_unique, depth)) is not None:
                yield made

    def _array(
        self, plain: Plain, length: int, contains: Sequence[Schema], is_unique: bool, depth: int
    ) -> list[Any] | None:
        """An array of this length; None if an item cannot be made. The last ones are those that it must contain."""
        made: list[Any] = []
        for place in range(length):
            schemas = _item(plain, place)
            from_end = length - place
            if from_end <= len(contains):
                schemas = [*schemas, contains[-from_end]]
            values = islice(self.of(schemas, depth + 1), MAX_TRIES if is_unique else 1)
            fresh = (value for value in values if not is_unique or not any(_is_same(value, other) for other in made))
            if (value := next(fresh, _NONE)) is _NONE:
                return None
            made.append(value)
        return made


_NONE = object()


def _is_choice_of_texts(plain: Plain) -> bool:
    """Whether the values are texts that nothing restricts further. There are many of these, so they are not checked."""
    values = [value for each in plain for value in each.get("enum", [each.get("const")])]
    return (
        len(plain) == 1
        and plain[0].keys() <= _OF_CHOICES
        and all(isinstance(value, str) for value in values)
        and (plain[0].get("type", "string") == "string")
    )


def _types(plain: Plain) -> list[str]:
    """The types that a value may have, in the order in which they are tried: null last, unless a schema forces it."""
    allowed = set(_TYPES)
    for each in plain:
        if "type" in each:
            named = {each["type"]} if isinstance(each["type"], str) else set(each["type"])
            allowed &= named | ({"integer"} if "number" in named else set())
    meant = [name for name, words in _KEYWORDS.items() if any(word in each for each in plain for word in words)]
    usual = ["string", "object", "array", "integer", "number", "boolean", "null"]
    declared = [name for each in plain for name in _as_list(each.get("type", ())) if name != "null"]
    order = [*(meant if not declared else ()), *declared, *usual]
    return [name for name in dict.fromkeys(order) if name in allowed]


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value)


def _declared(plain: Plain) -> list[str]:
    return list(dict.fromkeys(chain.from_iterable(each.get("properties", ()) for each in plain)))


def _required(plain: Plain) -> list[str]:
    """The names of the properties that must be there, with those that they require."""
    names = dict.fromkeys(chain.from_iterable(each.get("required", ()) for each in plain))
    left = list(names)
    while left:
        name = left.pop()
        more = chain.from_iterable(each.get("dependentRequired", {}).get(name, ()) for each in plain)
        left += (fresh := [each for each in more if each not in names])
        names.update(dict.fromkeys(fresh))
    return list(names)


def _item(plain: Plain, place: int) -> list[Schema]:
    """The schemas that the item at a place must satisfy. Lists of `items` are those of older drafts."""
    found: list[Schema] = []
    for each in plain:
        items = each.get("items", True)
        prefix = each.get("prefixItems", items if isinstance(items, list) else ())
        rest = each.get("additionalItems", True) if isinstance(items, list) else items
        found.append(prefix[place] if place < len(prefix) else rest)
    return found


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal in JSON, where true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
