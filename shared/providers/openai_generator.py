"""Answers by a model behind any endpoint that implements OpenAI's API: OpenAI, vLLM, Ollama, llama.cpp, LiteLLM …"""

import hashlib
import json
from collections.abc import Callable, Iterator

import httpx

from shared.errors import ProviderError
from shared.providers import GenerationRequest, Usage
from shared.providers.factory import capable_of
from shared.providers.json_events import EventReader
from shared.providers.model_request import Capability, Message
from shared.providers.openai_endpoint import Endpoint
from shared.providers.openai_request import parameters
from shared.providers.openai_stream import AnswerError, AnswerReader
from shared.settings import Settings, SettingsError

_NAME_DIGITS = 8


class OpenAIGenerator:
    """Streams chat completions. Options that are None are left to the prompt, and then to the model.

    Args:
        system_prompt: Comes before the conversation.
        temperature: Used unless the prompt has its own.
        max_tokens: Limits an answer. A prompt may ask for less, never for more.
    """

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
        self.endpoint = endpoint
        self._model = model
        self._system_prompt = system_prompt
        self._temperature, self._max_tokens = temperature, max_tokens

    def generate(self, request: GenerationRequest) -> Iterator[str | Usage]:
        headers = {"Idempotency-Key": request.idempotency_key} if request.idempotency_key else None
        body = {
            "model": self._model,
            "messages": self._messages(request),
            "stream": True,
            "stream_options": {"include_usage": True},
            **parameters(
                request.asked,
                is_openai=self.endpoint.is_openai,
                temperature=self._temperature,
                max_tokens=self._max_tokens,
            ),
        }
        with self.endpoint.errors(), self.endpoint.stream("chat/completions", body, headers) as response:
            failures = self.endpoint.failures
            reader = AnswerReader(
                self._model,
                lambda payload: failures.from_answer(payload, response.headers),
                offers_tools=bool(request.asked.tools),
            )
            chunks = self.endpoint.chunks(response)
            yield from read_texts(
                chunks, reader, lambda is_complete: self.endpoint.limit_rest(response, is_limited=is_complete)
            )
            if reader.is_done:
                self.endpoint.finish(response, chunks)
            try:
                rest = reader.end()
            except ProviderError:
                if reader.usage.completion_tokens is not None:
                    yield reader.usage  # what the model has used without answering
                raise
            if rest:
                yield rest
            yield reader.usage

    def _messages(self, request: GenerationRequest) -> list[Message]:
        system = [{"role": "system", "content": self._system_prompt}] if self._system_prompt else []
        return system + request.messages


def read_texts(
    chunks: Iterator[bytes], reader: AnswerReader, on_complete: Callable[[bool], object] = lambda _: None
) -> Iterator[str]:
    """Yield the texts of an answer. What fails after its end does not matter: only its usage is missing.

    `on_complete` is called when the answer seems complete, and when it goes on nevertheless. Some servers then neither
    send `[DONE]` nor end the response.

    Raises:
        ProviderError: the server failed, or sends something else.
        httpx.HTTPError, MalformedStreamError: the same, for `Endpoint.errors` to translate.
    """
    events = EventReader()
    data: bytes | None = b""
    was_complete = False
    while data is not None and not reader.is_done:
        failure: Exception | None = None
        try:
            data = next(chunks, None)
        except httpx.HTTPError as error:
            failure = error
        else:
            try:
                for event in events.close() if data is None else events.feed(data):
                    if text := reader.read(event):
                        yield text
                    if reader.is_done:
                        return
            except AnswerError as error:
                failure = error.error
        if reader.is_complete != was_complete:
            was_complete = reader.is_complete
            on_complete(was_complete)
        failure = failure or events.failure
        if failure is not None:
            if reader.is_complete:
                return
            raise failure


@capable_of(*Capability)
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
