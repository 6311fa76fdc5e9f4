"""A finished prompt as a chat completion, and its text as the chunks of a stream."""

from collections.abc import Iterator
from typing import Any

from shared.openai import ids
from shared.openai.ids import IdPrefix
from shared.prompts.answer import Answer, FinishReason
from shared.prompts.queries import PromptRow


def chat_completion(prompt: PromptRow) -> dict[str, Any]:
    """The chat completion of a prompt that is completed."""
    answer = prompt.answer
    calls = {"tool_calls": list(answer.tool_calls)} if answer.tool_calls else {}
    message = {"role": "assistant", "content": _content(answer), "refusal": None, "annotations": [], **calls}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(answer)}
    shown = {"choices": [choice], "usage": answer.usage, "metadata": prompt.metadata or {}}
    return {**_head(prompt, "chat.completion"), **shown, "service_tier": "default"}


class Chunks:
    """The chunks of a prompt's stream.

    Args:
        with_usage: Whether the last chunk has the usage, and all others `"usage": null`.
    """

    def __init__(self, prompt: PromptRow, *, with_usage: bool) -> None:
        self._head = _head(prompt, "chat.completion.chunk") | ({"usage": None} if with_usage else {})
        self._with_usage = with_usage

    def first(self) -> dict[str, Any]:
        """The chunk that begins the answer."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def text(self, text: str) -> dict[str, Any]:
        """A part of the answer."""
        return self._chunk({"content": text})

    def end(self, answer: Answer) -> Iterator[dict[str, Any]]:
        """What follows the text: the calls of tools, the reason to stop, and the usage."""
        for index, call in enumerate(answer.tool_calls or ()):
            yield self._chunk({"tool_calls": [{"index": index, **call}]})
        yield self._chunk({}, finish_reason(answer))
        if self._with_usage:
            yield self._head | {"choices": [], "usage": answer.usage}

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._head | {"choices": [choice]}


def finish_reason(answer: Answer) -> str:
    """Why the model stopped. OpenAI's API has no null here, so an unknown reason is `stop`."""
    return answer.finish_reason or (FinishReason.TOOL_CALLS if answer.tool_calls else FinishReason.STOP)


def _head(prompt: PromptRow, kind: str) -> dict[str, Any]:
    return {
        "id": ids.make(IdPrefix.CHAT_COMPLETION, prompt.id),
        "object": kind,
        "created": int(prompt.created_at.timestamp()),
        "model": prompt.route,
        "system_fingerprint": None,
    }


def _content(answer: Answer) -> str | None:
    return None if answer.tool_calls and not answer.response_text else answer.response_text
