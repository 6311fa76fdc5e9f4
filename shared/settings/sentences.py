"""One sentence for each wrong setting, without the validator's jargon and without the value, which may be a secret."""

from decimal import Decimal
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails


def describe(error: ErrorDetails, model: type[BaseModel], name: str = "") -> str:
    """What is wrong with a setting, and what it should be. `name` is what people know it by, if not its own."""
    text = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return text
    name, field = name or str(error["loc"][0]).upper(), model.model_fields[str(error["loc"][0])]
    kinds = {field.annotation, *get_args(field.annotation)}
    match error["type"]:
        case "missing":
            return f"{name} is not set. See .env.example for what it means and how to make one."
        case "literal_error":
            return f"{name} must be {error['ctx']['expected']}.".replace("'", "")
        case "value_error":
            return f"{name}: {text}."
        case _ if bool in kinds:
            return f"{name} must be true or false."
        case "string_type":
            return f"{name} must be a text."
        case "string_too_short":
            return f"{name} must not be empty."
        case _ if kinds & {int, float, Decimal}:
            number = "a whole number" if int in kinds else "a number"
            return f"{name} must be {number} from {_limit(field, 'ge')} to {_limit(field, 'le')}."
    return f"{name}: {text}."


def _limit(field: FieldInfo, name: str) -> Any:
    """The lower (`ge`) or upper (`le`) limit of a number."""
    return next(limit for part in field.metadata if (limit := getattr(part, name, None)) is not None)
