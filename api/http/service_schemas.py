"""Responses about the service itself: problems and health."""

from typing import Literal

from pydantic import Field

from api.http.fields import Moment
from api.http.openapi.models import Answer


class FieldError(Answer):
    """An invalid field, header or parameter."""

    field: str = Field(description="Its name, with dots if it is nested.")
    message: str


class Problem(Answer):
    """An error (RFC 9457)."""

    type: str = Field(
        description="The kind of error: a URN of this service, or `about:blank` if the status says it all.",
        json_schema_extra={"format": "uri"},
    )
    title: str = Field(description="The status's name.")
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What went wrong, in words.")
    errors: list[FieldError] | None = Field(None, description="For an invalid request: what is wrong with it.")
    resets_at: Moment | None = Field(None, description="For an exceeded budget: when the next month begins.")


class Health(Answer):
    """The state of a process."""

    status: Literal["ok", "degraded", "unavailable"]
    version: str = Field(description="The version of Promptwire.")
    checks: dict[str, str] = Field(description="By dependency: `ok`, or what is wrong.")
