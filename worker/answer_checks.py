"""Checks of requests and of whole answers: whether a generator can do, and has done, what a prompt asked for."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import from_json

from shared.errors import ProviderError
from shared.prompts.answer import FinishReason
from shared.providers import Usage
from shared.providers.json_schema import JsonSchema, validate
from shared.providers.model_request import Capability, ModelRequest

#: The longest JSON that is checked against a schema. It takes some 10 ms.
MAX_CHECKED_BYTES = 1024 * 1024
_QUOTED = 100
#: Answers that end for these reasons are cut, so that they cannot be whole.
_CUT = (FinishReason.LENGTH, FinishReason.CONTENT_FILTER)


class BrokenAnswerError(ProviderError):
    """An answer is not what the prompt asked for. Another attempt may be."""


def check_capabilities(asked: ModelRequest, capabilities: Iterable[Capability], name: str) -> None:
    """Refuse what a generator cannot do. The API does so first, but during a deployment its settings may differ.

    Raises:
        ProviderError: it lacks a capability.
    """
    if lacking := sorted(asked.needs.difference(capabilities)):
        message = f"The generator {name} cannot do what the prompt asks for: {', '.join(lacking)}."
        raise ProviderError(message, retryable=False)


def check_answer(text: str, usage: Usage, asked: ModelRequest) -> Usage:
    """Check a whole answer, and return its usage with the right finish_reason.

    Raises:
        ProviderError: it has neither text nor tool calls.
        BrokenAnswerError: its text is not the JSON that was asked for, or its tool calls are not those of tools that
            were offered, with arguments that are valid if the tool is `strict`.
    """
    if usage.tool_calls:
        _check_calls(usage.tool_calls, asked.tools)
        if usage.finish_reason not in _CUT:
            return usage._replace(finish_reason=FinishReason.TOOL_CALLS.value)
    elif not text:
        raise _no_text(usage.finish_reason)
    elif asked.response_format is not None and usage.finish_reason not in _CUT:
        _check_format(text, asked.response_format)
    return usage


def _check_format(text: str, wanted: dict[str, Any]) -> None:
    if wanted["type"] not in (Capability.JSON_OBJECT, Capability.JSON_SCHEMA):
        return
    try:
        value = _parsed(text)
    except ValueError as error:
        raise BrokenAnswerError(f"The model's answer is not JSON: {error}. It begins {_quote(text)}.") from None
    if wanted["type"] == Capability.JSON_OBJECT:
        if not isinstance(value, dict):
            raise BrokenAnswerError(f"The model's answer is not a JSON object: {_quote(text)}.")
    elif (broken := _broken(value, wanted["json_schema"].get("schema", True))) is not None:
        raise BrokenAnswerError(f"The model's answer does not fit its JSON schema: {broken}.")


def _check_calls(calls: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> None:
    offered = {tool["function"]["name"]: tool["function"] for tool in tools}
    if not offered:
        raise BrokenAnswerError("The model called a tool instead of answering, though it was offered none.")
    for call in calls:
        name = call["function"]["name"]
        if name not in offered:
            raise BrokenAnswerError(f"The model called a tool that it was not offered: {_quote(name)}.")
        if offered[name].get("strict"):
            _check_arguments(name, call["function"]["arguments"], offered[name].get("parameters", True))


def _check_arguments(name: str, arguments: str, parameters: JsonSchema) -> None:
    """Check the arguments of a tool that is `strict`: it must be called with valid ones."""
    try:
        value = _parsed(arguments)
    except ValueError as error:
        raise BrokenAnswerError(f"The model called a tool with arguments that are not JSON: {name}: {error}.") from None
    if (broken := _broken(value, parameters)) is not None:
        raise BrokenAnswerError(f"The model called a tool with arguments that do not fit its schema: {name}: {broken}.")


def _parsed(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, also if it is too long to be checked."""
    if len(text) > MAX_CHECKED_BYTES:
        raise ValueError(f"it has more than {MAX_CHECKED_BYTES} characters")
    return from_json(text, allow_inf_nan=False)


def _broken(value: Any, schema: JsonSchema) -> str | None:
    """Where a value breaks a schema. Raises ProviderError if the schema is not valid."""
    try:
        found = validate(value, schema)
    except ValueError as error:  # the API has checked it, perhaps by the rules of another version
        raise ProviderError(f"The JSON schema of the prompt is not valid: {error}.", retryable=False) from None
    return None if found is None else found.rstrip(".")


def _quote(text: str) -> str:
    return json.dumps(text if len(text) <= _QUOTED else f"{text[: _QUOTED - 1]}…", ensure_ascii=False)


def _no_text(finish_reason: str | None) -> ProviderError:
    """The error of an answer without any text."""
    if finish_reason == FinishReason.CONTENT_FILTER:
        return ProviderError("The provider's content filter blocked the answer.", retryable=False)
    if finish_reason == FinishReason.TOOL_CALLS:
        return ProviderError("The model returned no text, only calls of tools.")
    if finish_reason == FinishReason.LENGTH:
        return ProviderError("The model returned no text before its length limit.")
    return ProviderError("The model returned no text.")
