"""The base of all models of request bodies, and what their fields share, whichever API they belong to."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from shared.errors import InvalidFieldsError
from shared.providers.json_schema import check_schema

#: Up to this many unknown fields or parameters get an error each. More get one error together, because pydantic takes
#: 0.3 s for 60,000 errors.
MAX_UNKNOWN_NAMES = 16

MAX_PROMPT_LENGTH = 100_000
MAX_TOOLS = 128
MAX_STOPS = 4
MAX_METADATA_PAIRS = 16
MAX_METADATA_KEY_LENGTH = 64
MAX_METADATA_VALUE_LENGTH = 512

#: What Postgres can store, as a JSON Schema pattern.
STORABLE = r"^[^\u0000]*$"


class KnownNamesOnly(BaseModel):
    """A model that refuses input with many unknown names, in one error."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_many_unknown(cls, values: Any) -> Any:
        if isinstance(values, dict) and len(values) > len(cls.model_fields) + MAX_UNKNOWN_NAMES:
            names = ", ".join(field.alias or name for name, field in cls.model_fields.items())
            raise ValueError(f"There are {len(values)} names, most of them unknown. Known: {names}.")
        return values


class Body(KnownNamesOnly):
    """A request body: an object with exactly these fields, in their JSON types."""

    model_config = ConfigDict(extra="forbid", strict=True)


def whole(number: object) -> object:
    """Accept 4.0 as 4: JSON has one kind of number."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def matching(pattern: str, message: str) -> tuple[FieldInfo, AfterValidator]:
    """What makes a string match a pattern; `message` says so to people."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(message)
        return text

    return Field(json_schema_extra={"pattern": pattern}), AfterValidator(check)


def _valid_schema(schema: Any) -> Any:
    try:
        check_schema(schema)
    except InvalidFieldsError as error:
        raise ValueError(str(error)) from None
    return schema


#: A JSON Schema that generators can be given.
ValidSchema = Annotated[dict[str, Any], AfterValidator(_valid_schema)]
