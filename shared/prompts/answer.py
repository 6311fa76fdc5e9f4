"""What a generator answered: the columns of `prompts` that an answer fills, defined here once.

The statements that write and read them are made from the fields of `Answer`, so a new one needs a column and a
migration, a field here, and a line in the API's schema.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple


class FinishReason(StrEnum):
    """Why a model stopped, in the terms of OpenAI's API."""

    STOP = "stop"  # it had said everything
    LENGTH = "length"  # the answer is cut off: it reached the limit of tokens
    CONTENT_FILTER = "content_filter"  # the provider withheld the rest
    TOOL_CALLS = "tool_calls"  # the model wants tools to be called


class Answer(NamedTuple):
    """An answer and what is known about it. Each field is a column of `prompts`; all are None without an answer."""

    response_text: str | None = None
    generator: str | None = None  #: its name
    model: str | None = None  #: as the provider reports it
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None  #: a FinishReason
    tool_calls: Sequence[dict[str, Any]] | None = None  #: the functions to call, as OpenAI's chat completions have them
    cached_from: int | None = None  #: the prompt whose answer was taken

    @property
    def usage(self) -> dict[str, int] | None:
        """The tokens that the answer took, with the names and the sum of OpenAI's API; None if they are not known."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

    def details(self) -> dict[str, Any]:
        """What a client sees of the answer, apart from its text: the same in the prompt resource and in events."""
        return {
            "provider_model": self.model,
            "usage": self.usage,
            "finish_reason": self.finish_reason,
            "tool_calls": self.tool_calls,
            "cached_from": self.cached_from,
        }
