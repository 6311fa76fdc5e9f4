"""Answers by a model behind any endpoint that implements OpenAI's API: OpenAI, vLLM, Ollama, llama.cpp, LiteLLM …"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import openai
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from openai.types.chat.chat_completion_chunk import ChoiceDelta

from shared.errors import ProviderError
from shared.providers import GenerationRequest, Usage
from shared.providers.openai_endpoint import Endpoint
from shared.settings import Settings, SettingsError

_NAME_DIGITS = 8


class OpenAIGenerator:
    """Streams chat completions. `max_tokens` limits an answer; options that are None are left to the model."""

    max_batch_size = 1
    is_remote = True

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        *,
        system_prompt: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> None:
        depends_on = json.dumps([endpoint.url, system_prompt, temperature, max_tokens])
        self.name = f"openai:{model}:{hashlib.sha256(depends_on.encode()).hexdigest()[:_NAME_DIGITS]}"
        self._endpoint = endpoint
        self._completions = endpoint.client.chat.completions
        self._model = model
        self._system_prompt = system_prompt
        self._options: dict[str, Any] = {}
        if temperature is not None:
            self._options["temperature"] = temperature
        if max_tokens is not None:
            # OpenAI's newer models reject the old name, and most other servers do not know the new one.
            self._options["max_completion_tokens" if endpoint.is_openai else "max_tokens"] = max_tokens

    def generate(self, request: GenerationRequest) -> Iterator[str | Usage]:
        usage, finish_reason, is_empty = Usage(self._model), None, True
        try:
            with self._endpoint.errors(), self._request(request) as stream:
                for chunk in stream:
                    usage = _usage(chunk, usage)
                    for choice in (chunk.choices or ())[:1]:
                        if text := _text(choice.delta):
                            is_empty = False
                            yield text
                        finish_reason = choice.finish_reason or finish_reason
        except ProviderError:
            if finish_reason is None:  # otherwise the answer is complete, and only its end mark or usage is missing
                raise
        if finish_reason is None:
            raise ProviderError("The provider's answer was incomplete.")
        if finish_reason == "content_filter" and is_empty:
            raise ProviderError("The provider's content filter blocked the answer.", retryable=False)
        yield usage

    def _request(self, request: GenerationRequest) -> openai.Stream[ChatCompletionChunk]:
        stream: openai.Stream[ChatCompletionChunk] = self._completions.create(
            model=self._model,
            messages=self._messages(request),
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"Idempotency-Key": request.idempotency_key} if request.idempotency_key else None,
            **self._options,
        )
        return stream

    def _messages(self, request: GenerationRequest) -> list[ChatCompletionMessageParam]:
        messages: list[ChatCompletionMessageParam] = []
        if self._system_prompt:
            messages.append({"role": "system", "content": self._system_prompt})
        for exchange in request.history:
            messages.append({"role": "user", "content": exchange.prompt_text})
            messages.append({"role": "assistant", "content": exchange.response_text})
        return [*messages, {"role": "user", "content": request.prompt_text}]


def _text(delta: ChoiceDelta | None) -> str:
    return "".join(part for part in (delta.content, delta.refusal) if part) if delta else ""


def _usage(chunk: ChatCompletionChunk, so_far: Usage) -> Usage:
    """Add what the chunk reports. Some servers send the tokens with the last words, some in a chunk of their own."""
    model = chunk.model or so_far.model
    if chunk.usage is None:
        return so_far._replace(model=model)
    return Usage(model, chunk.usage.prompt_tokens, chunk.usage.completion_tokens)


def make(settings: Settings) -> OpenAIGenerator:
    if not settings.openai_model.strip():
        raise SettingsError("OPENAI_MODEL is not set. GENERATOR=openai needs the name of one of the endpoint's models.")
    return OpenAIGenerator(
        Endpoint(
            settings.openai_base_url,
            settings.openai_api_key.get_secret_value(),
            timeout_seconds=settings.openai_timeout_seconds,
        ),
        settings.openai_model.strip(),
        system_prompt=settings.openai_system_prompt,
        temperature=settings.openai_temperature,
        max_tokens=settings.openai_max_tokens,
    )
