"""A prompt as a response: the resource of `/v1/responses`, valid against Open Responses 2026-04-24."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Self

from shared.db.models import Status
from shared.openai import ids
from shared.openai.ids import IdPrefix
from shared.prompts.answer import FinishReason
from shared.prompts.queries import PromptRow
from shared.providers.model_request import ModelRequest

_STATUS = {
    Status.QUEUED: "queued",
    Status.PROCESSING: "in_progress",
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
}
#: Why an answer is incomplete, by its finish reason.
_INCOMPLETE = {FinishReason.LENGTH: "max_output_tokens", FinishReason.CONTENT_FILTER: "content_filter"}
#: What a parameter is if the request does not say.
_DEFAULTS: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "parallel_tool_calls": True,
}
_OPTIONAL = ("previous_response_id", "max_tool_calls", "safety_identifier", "prompt_cache_key")


class StoredResponse(NamedTuple):
    """A prompt that `/v1/responses` has submitted, with what its resource repeats of the request."""

    prompt: PromptRow
    asked: ModelRequest
    api_request: Mapping[str, Any]

    @classmethod
    def from_row(cls, row: Any) -> Self:
        """The response in a row of `queries.COLUMNS`, `request` and `api_request`."""
        return cls(PromptRow.from_row(row), ModelRequest.from_json(row.request), row.api_request or {})

    @property
    def id(self) -> str:
        return ids.make(IdPrefix.RESPONSE, self.prompt.id)

    @property
    def is_stored(self) -> bool:
        """Whether it can be retrieved (`store`)."""
        return not self.api_request.get("is_unstored")

    @property
    def is_background(self) -> bool:
        return bool(self.api_request.get("background"))

    @property
    def interrupted(self) -> dict[int, str]:
        """The text that failed or cancelled attempts had published, by attempt."""
        kept = self.api_request.get("interrupted", {})
        return {attempt: kept[str(attempt)] for attempt in sorted(map(int, kept))}

    def with_interrupted(self, kept: Mapping[int, str]) -> "StoredResponse":
        """The same with these texts of failed and cancelled attempts."""
        texts = {str(attempt): text for attempt, text in kept.items()}
        return self._replace(api_request={**self.api_request, "interrupted": texts})


def status(prompt: PromptRow) -> str:
    """The status of a response."""
    is_cut = prompt.status == Status.COMPLETED and prompt.answer.finish_reason in _INCOMPLETE
    return "incomplete" if is_cut else _STATUS[Status(prompt.status)]


def response_resource(response: StoredResponse, *, restarts: int = 0) -> dict[str, Any]:
    """Render a response.

    Args:
        restarts: How many items its stream had before the answer (see `response_events.py`).
    """
    prompt = response.prompt
    return snapshot(response, status(prompt)) | {
        "completed_at": _seconds(prompt.completed_at) if prompt.status == Status.COMPLETED else None,
        "incomplete_details": _incomplete_details(prompt),
        "output": output_items(prompt, restarts),
        "error": _error(prompt),
        "usage": _usage(prompt),
    }


def snapshot(response: StoredResponse, shown_status: str) -> dict[str, Any]:
    """The resource before its end, with this status. It depends on the request alone."""
    prompt, asked, repeated = response
    given = {name: getattr(asked, name) for name in _DEFAULTS}
    return {
        "id": response.id,
        "object": "response",
        "created_at": _seconds(prompt.created_at),
        "completed_at": None,
        "status": shown_status,
        "incomplete_details": None,
        "model": prompt.route,
        "instructions": asked.instructions,
        "output": [],
        "error": None,
        "tools": _tools(response),
        "tool_choice": _tool_choice(response),
        "truncation": "disabled",
        "text": {"format": _text_format(asked)},
        **{name: _DEFAULTS[name] if value is None else value for name, value in given.items()},
        **{name: repeated.get(name) for name in _OPTIONAL},
        **({"user": repeated["user"]} if "user" in repeated else {}),
        "top_logprobs": 0,
        "reasoning": None if asked.reasoning_effort is None else {"effort": asked.reasoning_effort, "summary": None},
        "usage": None,
        "max_output_tokens": asked.max_output_tokens,
        "store": response.is_stored,
        "background": response.is_background,
        "service_tier": "default",
        "metadata": prompt.metadata or {},
    }


def output_items(prompt: PromptRow, restarts: int = 0) -> list[dict[str, Any]]:
    """The items of an answer: its text, then the functions to call; none without an answer."""
    text, calls = prompt.answer.response_text, prompt.answer.tool_calls or []
    if prompt.status != Status.COMPLETED or text is None:
        return []
    item_status = "incomplete" if status(prompt) == "incomplete" else "completed"
    messages = [] if calls and not text else [message_item(prompt.id, restarts, item_status, text)]
    return messages + [call_item(prompt.id, i, "completed", call) for i, call in enumerate(calls)]


def message_item(prompt_id: int, number: int, item_status: str, text: str | None = None) -> dict[str, Any]:
    """The item of a text. `number` counts those that were given up before it; `text` is None before there is any."""
    suffix = f"_{number + 1}" if number else ""
    return {
        "type": "message",
        "id": f"{ids.make(IdPrefix.MESSAGE, prompt_id)}{suffix}",
        "status": item_status,
        "role": "assistant",
        "content": [] if text is None else [text_part(text)],
    }


def text_part(text: str) -> dict[str, Any]:
    """The part of an item that has its text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(prompt_id: int, index: int, item_status: str, call: Mapping[str, Any]) -> dict[str, Any]:
    """The item of a function to call."""
    function = call["function"]
    return {
        "type": "function_call",
        "id": f"{ids.make(IdPrefix.CALL, prompt_id)}_{index + 1}",
        "call_id": call["id"],
        "name": function["name"],
        "arguments": function["arguments"],
        "status": item_status,
    }


def _seconds(time: datetime | None) -> int | None:
    return None if time is None else math.floor(time.timestamp())


def _incomplete_details(prompt: PromptRow) -> dict[str, str] | None:
    reason = _INCOMPLETE.get(FinishReason(prompt.answer.finish_reason)) if prompt.answer.finish_reason else None
    return {"reason": reason} if reason is not None and prompt.status == Status.COMPLETED else None


def _error(prompt: PromptRow) -> dict[str, str] | None:
    return {"code": "server_error", "message": prompt.error or ""} if prompt.status == Status.FAILED else None


def _usage(prompt: PromptRow) -> dict[str, Any] | None:
    usage = prompt.answer.usage
    if usage is None:
        return None
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }


def _tools(response: StoredResponse) -> list[dict[str, Any]]:
    given: Sequence[Mapping[str, Any]] = response.api_request.get("tools") or [
        tool["function"] for tool in response.asked.tools
    ]
    empty = {"description": None, "parameters": None, "strict": None}
    return [{**empty, **tool, "type": "function"} for tool in given]


def _tool_choice(response: StoredResponse) -> str | dict[str, Any]:
    choice: str | dict[str, Any] = response.api_request.get("tool_choice") or response.asked.tool_choice or "auto"
    if isinstance(choice, str) or "function" not in choice:
        return choice
    return {"type": "function", "name": choice["function"]["name"]}


def _text_format(asked: ModelRequest) -> dict[str, Any]:
    wanted = asked.response_format or {"type": "text"}
    if wanted["type"] != "json_schema":
        return {"type": wanted["type"]}
    named = wanted["json_schema"]
    # The published schema of the resource allows only null here.
    return {
        "type": "json_schema",
        "name": named["name"],
        "description": named.get("description"),
        "schema": None,
        "strict": named.get("strict") or False,
    }
