"""The messages about the fields of a request."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from shared import validation_messages


def _refuse(_: str) -> str:
    raise ValueError("must be something else")


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field("a word", min_length=2, max_length=10)
    name: str = Field("a name", min_length=1)
    number: int = Field(1, ge=1, le=5)
    share: float = 0.5
    flag: bool = False
    kinds: list[Literal["day", "model", "key"]] = Field(["day"], min_length=1, max_length=2)
    ours: Annotated[str, AfterValidator(_refuse)] = ""
    needed: str


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("needed", None, "must be a string"),
        ("text", "a", "must have 2 or more characters"),
        ("text", "a" * 11, "must have 10 characters or fewer"),
        ("text", 1, "must be a string"),
        ("name", "", "must not be empty"),
        ("number", 0, "must be 1 or more"),
        ("number", 6, "must be 5 or less"),
        ("number", 1.5, "must be a whole number"),
        ("number", "x", "must be a whole number"),
        ("number", None, "must be a whole number"),
        ("share", "x", "must be a number"),
        ("flag", "x", "must be true or false"),
        ("flag", None, "must be true or false"),
        ("kinds", "day", "must be a list"),
        ("kinds", [], "must not be empty"),
        ("kinds", ["day"] * 3, "must have 2 items or fewer"),
        ("kinds", ["week"], "must be 'day', 'model' or 'key'"),
        ("ours", "x", "must be something else"),
        ("other", 1, "is not known"),
    ],
)
def test_a_message_says_what_a_field_must_be_without_the_validators_jargon(
    field: str, value: Any, message: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        _Request.model_validate({"needed": "", field: value})
    assert [validation_messages.describe(error) for error in raised.value.errors()] == [message]


def test_a_missing_field_is_required() -> None:
    with pytest.raises(ValidationError) as raised:
        _Request.model_validate({})
    assert [validation_messages.describe(error) for error in raised.value.errors()] == ["is required"]
