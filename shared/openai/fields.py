"""Fields that the requests of OpenAI's API share."""

import math
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from shared.request_body import (
    MAX_METADATA_KEY_LENGTH,
    MAX_METADATA_PAIRS,
    MAX_METADATA_VALUE_LENGTH,
    STORABLE,
    Body,
    ValidSchema,
    matching,
    whole,
)

_FUNCTION_NAME = r"^[A-Za-z0-9_-]{1,64}$"
_SCALARS = (str, int, float, bool, type(None))


def _storable(value: Any) -> Any:
    """Raise ValueError if Postgres cannot store a text or a number in this JSON."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, str) and "\0" in each:
            raise ValueError("must not contain NUL characters")
        if isinstance(each, float) and not math.isfinite(each):  # 1e999 is valid JSON
            raise ValueError("must not contain numbers beyond the range of 64-bit floats")
        if isinstance(each, dict):
            pending += [*each, *each.values()]
        elif not isinstance(each, _SCALARS):
            pending += each
    return value


def text_or(tag: str) -> Discriminator:
    """Tells a string from what has this tag. A tag that begins with `~` is no part of a field's name in errors."""
    return Discriminator(lambda value: "~text" if isinstance(value, str) else tag)


def by_key(key: str, *values: str) -> Discriminator:
    """Tells objects by one of their keys, whose values are tags after a `~`."""

    def find(value: Any) -> str | None:
        found = value.get(key) if isinstance(value, dict) else getattr(value, key, None)
        return f"~{found}" if isinstance(found, str) and found in values else None

    message = f"must be an object whose {key} is one of: {', '.join(values)}"
    return Discriminator(find, custom_error_type="unknown_tag", custom_error_message=message)


def check_choice(choice: object, named: Collection[str], offered: Collection[str]) -> None:
    """Raise ValueError if a tool_choice needs a tool that is not in tools.

    Args:
        named: The functions that it names.
        offered: Those of `tools`.
    """
    if choice not in (None, "none", "auto") and not offered:
        raise ValueError("needs tools")
    if missing := [name for name in named if name not in offered]:
        raise ValueError(f"names {missing[0]}, which is not in tools")


Text = Annotated[str, Field(json_schema_extra={"pattern": STORABLE}), AfterValidator(_storable)]
PlainText = Annotated[Text, Tag("~text")]
#: What the `parse` methods of OpenAI's SDKs add to an answer. It is no more than the text beside it, so it is left out.
ParsedBySdk = Annotated[Any, Field(exclude=True)]
JsonSchema = Annotated[ValidSchema, AfterValidator(_storable)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1), BeforeValidator(whole)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1), BeforeValidator(whole)]
FunctionName = Annotated[str, *matching(_FUNCTION_NAME, "must have 1 to 64 letters, digits, underscores and hyphens")]


def _check_metadata(metadata: dict[str, str]) -> dict[str, str]:
    key_length, value_length = MAX_METADATA_KEY_LENGTH, MAX_METADATA_VALUE_LENGTH
    if any(not 0 < len(key) <= key_length or len(value) > value_length for key, value in metadata.items()):
        raise ValueError(f"must have keys of 1 to {key_length} and values of at most {value_length} characters")
    return metadata


Metadata = Annotated[dict[Text, Text], Field(max_length=MAX_METADATA_PAIRS), AfterValidator(_check_metadata)]


class TextFormat(Body):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Body):
    """A JSON object."""

    type: Literal["json_object"]
