"""Types of fields that the schemas of several subjects have."""

import re
from datetime import date, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from api.http.openapi.models import example
from shared import timestamps
from shared.request_body import (
    MAX_METADATA_KEY_LENGTH,
    MAX_METADATA_PAIRS,
    MAX_METADATA_VALUE_LENGTH,
    STORABLE,
    matching,
    whole,
)

MAX_ID = 2**63 - 1
#: Of the name of a model route; no configuration has a longer one.
MAX_MODEL_LENGTH = 200

# The validators below, as JSON Schema patterns.
STORABLE_NOT_BLANK = r"^[^\u0000]*\S[^\u0000]*$"


def storable(text: str) -> str:
    """Raise ValueError if Postgres cannot store the text."""
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    return text


def _not_blank(text: str) -> str:
    if not re.search(r"\S", text):
        raise ValueError("must not be blank")
    return storable(text)


def _time(text: object) -> datetime:
    return timestamps.parse(text if isinstance(text, str) else "")


def _day(text: object) -> date:
    """The day, in UTC, of an RFC 3339 date or time."""
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", str(text), re.ASCII):
            return date.fromisoformat(str(text))
        return timestamps.parse(str(text)).date()
    except ValueError:
        raise ValueError("must be a date, such as 2026-11-30, or a time, such as 2026-11-30T09:30:00Z") from None


NotBlank = Annotated[
    str, Field(min_length=1, json_schema_extra={"pattern": STORABLE_NOT_BLANK}), AfterValidator(_not_blank)
]
Storable = Annotated[str, Field(json_schema_extra={"pattern": STORABLE}), AfterValidator(storable)]
SeqNumber = Annotated[int, Field(ge=0, le=MAX_ID), BeforeValidator(whole)]
#: Pairs of strings by which a user finds prompts again.
Metadata = Annotated[
    dict[
        Annotated[Storable, StringConstraints(min_length=1, max_length=MAX_METADATA_KEY_LENGTH)],
        Annotated[Storable, StringConstraints(max_length=MAX_METADATA_VALUE_LENGTH)],
    ],
    Field(max_length=MAX_METADATA_PAIRS),
]
#: A time in a request, by RFC 3339.
Time = Annotated[datetime, BeforeValidator(_time)]
#: A day (UTC) in a request, as a date or as a time in it.
Day = Annotated[
    date,
    BeforeValidator(_day, json_schema_input_type=str),
    WithJsonSchema({"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}),
]
PageSize = Annotated[int, Field(ge=1, le=100, description="How many to return.")]
Cursor = Annotated[
    str | None,
    Field(
        max_length=64,
        description="The start of the page, as it is in the `Link` to the next page.",
        json_schema_extra=example("YmVmb3JlOjQx"),
    ),
]
IdempotencyKey = (
    Annotated[str, *matching(r"^[!-~]{1,255}$", "must have 1 to 255 visible ASCII characters, without spaces")] | None
)

# In responses.
Id = Annotated[int, Field(json_schema_extra={"format": "int64"})]
Date = Annotated[str, Field(json_schema_extra={"format": "date"})]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
