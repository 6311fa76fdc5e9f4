"""The messages about the fields of a request."""

import re
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

import api.app  # it imports all models of requests
from api.http.openapi.models import Body, Parameters
from shared import validation_messages


def _refuse(_: str) -> str:
    raise ValueError("must be something else")


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field("a word", min_length=2, max_length=10)
    name: str = Field("a name", min_length=1)
    number: int = Field(1, ge=1, le=5)
    share: float = Field(0.5, le=2)
    note: Annotated[str, AfterValidator(str), Field(min_length=2, max_length=3)] = "abc"
    code: str = Field("a", pattern="^a$")
    window: str = Field("24h", pattern=r"^[1-9][0-9]{0,2}h$")
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
        ("share", 2.5, "must be 2 or less"),
        ("note", "abcd", "must have 3 characters or fewer"),
        ("note", "a", "must have 2 or more characters"),
        ("code", "b", "has a form that is not valid"),
        ("window", "x", "must be whole hours, such as 24h"),
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


_WRONG: list[Any] = [None, -1, 1.5, "", " ", "x" * 20_000, "\x00", [1], [{}], {"a": 1}, {"type": "x"}, True]
_JARGON = re.compile(r"Input|String|should|pattern|UUID|instance|\.0 ")


def _request_models() -> dict[str, type[BaseModel]]:
    """The models of the API's requests, by their names."""
    assert api.app
    found, bases = {}, [Body, Parameters]
    while bases:
        for model in bases.pop().__subclasses__():
            bases.append(model)
            if model.__module__.startswith("api."):
                found[f"{model.__module__}.{model.__name__}"] = model
    return dict(sorted(found.items()))


_REQUESTS = _request_models()


@pytest.mark.parametrize("title", _REQUESTS)
def test_no_field_of_a_request_has_a_message_with_the_validators_jargon(title: str) -> None:
    model = _REQUESTS[title]
    for name, field in model.model_fields.items():
        for value in _WRONG:
            messages = _messages(model, {field.alias or name: value})
            assert [message for message in messages if _JARGON.search(message)] == []


def _messages(model: type[BaseModel], request: dict[str, Any]) -> list[str]:
    try:
        model.model_validate(request)
    except ValidationError as error:
        found = error.errors()
    else:
        return []
    return [validation_messages.describe(each) for each in found if each["type"] != "uuid_type"]  # paths are texts
