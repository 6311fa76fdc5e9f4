"""One sentence for each wrong setting, without the validator's jargon and without the value, which may be a secret."""

from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails


def describe(error: ErrorDetails, model: type[BaseModel]) -> str:
    """What is wrong with a setting, and what it should be."""
    text = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return text
    name, field = str(error["loc"][0]).upper(), model.model_fields[str(error["loc"][0])]
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
        case _ if kinds & {int, float}:
            number = "a whole number" if int in kinds else "a number"
            return f"{name} must be {number} from {_limit(field, 'ge')} to {_limit(field, 'le')}."
    return f"{name}: {text}."


def _limit(field: FieldInfo, name: str) -> Any:
    """The lower (`ge`) or upper (`le`) limit of a number."""
    return next(limit for part in field.metadata if (limit := getattr(part, name, None)) is not None)
