"""Requests and responses of `/v1/responses`, for the OpenAPI document. Open Responses describes all of their parts."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from api.http.openapi.models import Answer, Parameters, Query, example

#: The largest number of an event: a prompt's text has fewer characters.
_MAX_EVENT = 2**53


class ResponsePath(Parameters):
    response_id: str = Field(description="The response's `id`.", json_schema_extra=example("resp_1"))


class ResponseQuery(Query):
    stream: bool = Field(False, description="Whether to send the response's events instead of the response.")
    starting_after: int | None = Field(
        None,
        ge=0,
        le=_MAX_EVENT,
        description="With `stream`: the `sequence_number` of the last event that the client has.",
        json_schema_extra=example(7),
    )

    include_obfuscation: bool = Field(
        False, description="Only `false`: events are not padded.", json_schema_extra={"enum": [False]}
    )

    @field_validator("include_obfuscation")
    @classmethod
    def _is_not_wanted(cls, value: bool) -> bool:
        if value:
            raise ValueError("must be false")
        return value


class InputItemsQuery(Query):
    limit: int = Field(20, ge=1, le=100, description="How many items to return.")
    order: Literal["asc", "desc"] = Field("desc", description="Whether the oldest or the newest comes first.")
    after: str | None = Field(
        None, description="The id of the item before the page.", json_schema_extra=example("in_1_1")
    )


class ResponseTokens(BaseModel):
    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseError(BaseModel):
    code: str
    message: str


class ResponseResource(Answer):
    """A response: a prompt in the terms of Open Responses 2026-04-24."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="`resp_` and the prompt's id.")
    object: Literal["response"]
    created_at: int = Field(description="When it was submitted, in seconds since 1970.")
    completed_at: int | None = Field(description="When it was completed.")
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    incomplete_details: dict[str, str] | None = Field(description="Why the answer is cut off.")
    model: str = Field(description="The model route.")
    previous_response_id: str | None
    instructions: str | None
    output: list[dict[str, Any]] = Field(description="The answer: a message, and the functions to call.")
    error: ResponseError | None
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    truncation: Literal["disabled"]
    parallel_tool_calls: bool
    text: dict[str, Any]
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    temperature: float
    reasoning: dict[str, Any] | None
    usage: ResponseTokens | None = Field(description="The tokens, if known.")
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: bool
    service_tier: str
    metadata: dict[str, str]
    safety_identifier: str | None
    prompt_cache_key: str | None


class DeletedResponse(Answer):
    """A response that is deleted."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputItemList(Answer):
    """A page of the items of a response's input."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
