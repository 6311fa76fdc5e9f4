"""What is wrong with a field of a request, without the validator's jargon."""

from typing import Any

from pydantic_core import ErrorDetails

#: How many characters of a field's name are repeated.
MAX_FIELD_LENGTH = 200

#: By the type of the error (https://docs.pydantic.dev/latest/errors/validation_errors/), with its context's names.
_MESSAGES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "extra_forbidden": "is not known",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than_equal": "must be {ge} or more",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "int_type": "must be a whole number",
    "less_than_equal": "must be {le} or less",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "missing": "is required",
    "none_required": "is not served here",
    "model_type": "must be an object",
    "string_too_long": "must have {max_length} characters or fewer",
    "string_too_short": "must have {min_length} or more characters",
    "string_type": "must be a string",
    "too_long": "must have {max_length} items or fewer",
    "too_short": "must have {min_length} or more items",
    "uuid_parsing": "must be an id",
}

_NAME = 'must have 1 to 64 characters, of a-z, A-Z, 0-9, "_" and "-"'
#: What a text that must match a pattern is.
_PATTERNS = {
    r"^[a-zA-Z0-9_-]{1,64}\z": _NAME,
    r"^[A-Za-z0-9_-]{1,64}$": _NAME,
    r"^[!-~]{1,255}$": "must have 1 to 255 visible ASCII characters, and no spaces",
    r"^[1-9][0-9]{0,2}h$": "must be whole hours, such as 24h",
    r"^([0-9]{1,18}-([0-9]{1,18}|end))?$": "must be the id of an event of this stream",
    r"^[^\x00]*$": "must not contain NUL characters",
}
#: The names that pydantic has for what has items; all else that is too long or too short is a text.
_HAVE_ITEMS = frozenset({"Dictionary", "Frozenset", "List", "Set", "Tuple"})


def describe(error: ErrorDetails) -> str:
    """What the field must be. Our own validators' messages are as they are."""
    context = error.get("ctx", {})
    kind = _kind(error["type"], context)
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], "has a form that is not valid")
    if kind not in _MESSAGES:
        return error["msg"].removeprefix("Value error, ")
    if context.get("min_length") == 1:
        return "must not be empty"
    if context.get("max_length") == 0:
        return "must be empty"
    if context.get("expected") in ("True", "False"):
        return f"must be {context['expected'].lower()}"
    return _MESSAGES[kind].format(**{name: _number(value) for name, value in context.items()})


def field_name(location: tuple[int | str, ...]) -> str:
    """The name of a field. Parts that begin with `~` are not in the request: they say which kind of object it is."""
    name = ".".join(part for part in map(str, location) if not part.startswith("~"))
    return name if len(name) <= MAX_FIELD_LENGTH else f"{name[: MAX_FIELD_LENGTH - 1]}…"


def _kind(kind: str, context: dict[str, Any]) -> str:
    """The type of the error. Pydantic counts the items of a text that a validator has returned."""
    is_text = kind in ("too_long", "too_short") and context.get("field_type") not in _HAVE_ITEMS
    return f"string_{kind}" if is_text else kind


def _number(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
