"""What is wrong with a field of a request, without the validator's jargon."""

from pydantic_core import ErrorDetails

#: How many characters of a field's name are repeated.
MAX_FIELD_LENGTH = 200

#: By the type of the error (https://docs.pydantic.dev/latest/errors/validation_errors/), with its context's names.
_MESSAGES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "extra_forbidden": "is not known",
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
}


def describe(error: ErrorDetails) -> str:
    """What the field must be. Our own validators' messages are as they are."""
    if error["type"] not in _MESSAGES:
        return error["msg"].removeprefix("Value error, ")
    context = error.get("ctx", {})
    if context.get("min_length") == 1:
        return "must not be empty"
    if context.get("max_length") == 0:
        return "must be empty"
    if context.get("expected") in ("True", "False"):
        return f"must be {context['expected'].lower()}"
    kind = "string_too_long" if context.get("field_type") == "Value" else error["type"]
    return _MESSAGES[kind].format(**context)


def field_name(location: tuple[int | str, ...]) -> str:
    """The name of a field. Parts that begin with `~` are not in the request: they say which kind of object it is."""
    name = ".".join(part for part in map(str, location) if not part.startswith("~"))
    return name if len(name) <= MAX_FIELD_LENGTH else f"{name[: MAX_FIELD_LENGTH - 1]}…"
