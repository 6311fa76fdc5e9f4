"""Writes what a prompt asks for as the parameters of a chat completion."""

from typing import Any

from shared.providers.model_request import ModelRequest

#: Fields of a request that OpenAI's chat completions have under the same name.
_SAME_NAMES = (
    "top_p",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
)


def parameters(
    asked: ModelRequest, *, is_openai: bool, temperature: float | None = None, max_tokens: int | None = None
) -> dict[str, Any]:
    """The parameters besides the model and the messages; those that nobody has set are left to the model.

    Args:
        is_openai: Whether the endpoint is OpenAI's own.
        temperature: The operator's, used unless the prompt has its own.
        max_tokens: The operator's limit of an answer. A prompt may ask for less, never for more.
    """
    body = {name: value for name in _SAME_NAMES if (value := getattr(asked, name)) not in (None, (), [])}
    if (chosen := temperature if asked.temperature is None else asked.temperature) is not None:
        body["temperature"] = chosen
    if limits := [each for each in (max_tokens, asked.max_output_tokens) if each is not None]:
        # OpenAI's newer models reject the old name, and most other servers do not know the new one.
        body["max_completion_tokens" if is_openai else "max_tokens"] = min(limits)
    return body
