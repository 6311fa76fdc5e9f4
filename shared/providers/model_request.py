"""What a prompt asks of a model besides its text, in the terms of OpenAI's chat completions.

`POST /prompts/`, OpenAI's APIs and batches are ways of writing the same request. It is stored as JSON with the prompt.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cached_property
from typing import Any, Self

#: A message of a conversation, as OpenAI's chat completions have it: `role`, `content`, `tool_calls` …
Message = dict[str, Any]


class Capability(StrEnum):
    """Something that a request may ask for and that not every generator can do. Most are fields of a request."""

    MESSAGES = "messages"
    INSTRUCTIONS = "instructions"
    TEMPERATURE = "temperature"
    TOP_P = "top_p"
    MAX_OUTPUT_TOKENS = "max_output_tokens"
    STOP = "stop"
    SEED = "seed"
    FREQUENCY_PENALTY = "frequency_penalty"
    PRESENCE_PENALTY = "presence_penalty"
    REASONING_EFFORT = "reasoning_effort"
    TOOLS = "tools"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    IMAGES = "images"


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """What a prompt asks of a model besides its text. Each field is a key of its JSON; None and empty ones are not."""

    #: The turns before the prompt, oldest first; those of a system or developer come first.
    messages: Sequence[Message] = ()
    #: What the prompt says, if that is more than its text: parts with images, the results of tools, several messages.
    input: Sequence[Message] = ()
    instructions: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    stop: Sequence[str] = ()
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning_effort: str | None = None
    #: `{"type": "json_object"}` or `{"type": "json_schema", "json_schema": {"name", "schema", "strict"}}`.
    response_format: dict[str, Any] | None = None
    #: Functions, as chat completions have them: `{"type": "function", "function": {"name", "parameters", …}}`.
    tools: Sequence[dict[str, Any]] = ()
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | None) -> Self:
        """The request of a prompt that is stored. Keys of a later release are left out."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in (stored or {}).items() if name in known})

    @cached_property
    def stored(self) -> dict[str, Any] | None:
        """The request as it is stored, in JSON's types; None if it asks for nothing."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None and value not in ((), [], "")
        } or None

    @property
    def hash(self) -> bytes | None:
        """SHA-256 of all that changes an answer; None if it asks for nothing. Equal requests have equal hashes."""
        if self.stored is None:
            return None
        return hashlib.sha256(json.dumps(self.stored, sort_keys=True).encode()).digest()

    @property
    def needs(self) -> frozenset[Capability]:
        """What the generator must be able to do."""
        needed = {Capability(name) for name in self.stored or {} if name in _FIELDS}
        if self.input:
            needed.add(Capability.MESSAGES)
        if self.response_format is not None and self.response_format["type"] in _FORMATS:
            needed.add(Capability(self.response_format["type"]))
        if any(_has_image(message) for message in (*self.messages, *self.input)):
            needed.add(Capability.IMAGES)
        return frozenset(needed)

    def conversation(self, prompt_text: str, history: Sequence[Message] = ()) -> list[Message]:
        """All messages that the model reads: instructions, `history`, the turns before the prompt, and the prompt."""
        instructions = [{"role": "system", "content": self.instructions}] if self.instructions else []
        own = list(self.input) or [{"role": "user", "content": prompt_text}]
        return [*instructions, *history, *self.messages, *own]


_FIELDS = {str(each) for each in Capability}
_FORMATS = (Capability.JSON_OBJECT, Capability.JSON_SCHEMA)
#: A request that asks for nothing but the answer to the prompt's text.
TEXT_ONLY = ModelRequest()


def _has_image(message: Message) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(part.get("type") == "image_url" for part in content)
