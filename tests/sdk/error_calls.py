"""Errors by the Python SDK: their classes, and what is retried. Each function is a test."""

import openai
import pytest
from openai import OpenAI

from tests.sdk.chat_calls import QUESTION


def a_wrong_key_is_an_authentication_error(client: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as raised:
        client.with_options(api_key="pw_wrong").models.list()
    assert raised.value.code == "invalid_api_key"
    assert raised.value.request_id


def a_parameter_that_is_not_served_is_a_bad_request_with_its_name(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="default", messages=QUESTION, n=2)
    assert (raised.value.param, raised.value.type) == ("n", "invalid_request_error")


def an_unknown_model_is_a_bad_request_with_the_list(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Known models: default"):
        client.chat.completions.create(model="gpt-none", messages=QUESTION)


def an_unknown_completion_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve("chatcmpl-999999999")


def an_unknown_path_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.images.generate(prompt="a tide")


def a_reused_key_is_unprocessable(client: OpenAI) -> None:
    headers = {"Idempotency-Key": "reused"}
    client.chat.completions.create(model="default", messages=QUESTION, extra_headers=headers)
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="default", messages=QUESTION, seed=1, extra_headers=headers)


def a_prompt_that_cannot_be_answered_is_a_server_error_that_is_not_retried(client: OpenAI) -> None:
    impossible = {"name": "n", "schema": {"type": "string", "minLength": 2, "maxLength": 1}}
    with pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(
            model="default",
            messages=QUESTION,
            response_format={"type": "json_schema", "json_schema": impossible},  # type: ignore[typeddict-item]
        )
    assert raised.value.code == "prompt_failed"
    assert raised.value.response.request.headers["x-stainless-retry-count"] == "0"
