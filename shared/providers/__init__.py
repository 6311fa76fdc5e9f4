"""The interfaces of generators, which answer prompts, and of embedders, which turn texts into vectors.

`factory.py` creates those that the settings name.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from shared.errors import ProviderError
from shared.providers.model_request import TEXT_ONLY, Message, ModelRequest
from shared.telemetry import metrics

Vectors = npt.NDArray[np.float32]


class Exchange(NamedTuple):
    """An earlier prompt and its answer."""

    prompt_text: str
    response_text: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What a generator is asked to answer."""

    prompt_text: str
    #: Earlier exchanges of the same user, oldest first: the context of the answer.
    history: Sequence[Exchange] = ()
    #: The same for every attempt at a prompt, and unique to it.
    idempotency_key: str = ""
    #: What the prompt asks for besides its text; only what the generator's capabilities include.
    asked: ModelRequest = TEXT_ONLY

    @property
    def messages(self) -> list[Message]:
        """All messages that the model reads, as OpenAI's chat completions have them."""
        history = [
            {"role": role, "content": text}
            for exchange in self.history
            for role, text in zip(("user", "assistant"), exchange, strict=True)
        ]
        return self.asked.conversation(self.prompt_text, history)

    @property
    def texts(self) -> list[str]:
        """All texts that the model reads: of messages, and the definitions of tools and of a format, as JSON."""
        read = [text for message in self.messages for text in message_texts(message)]
        defined = [*self.asked.tools, *filter(None, [self.asked.response_format])]
        return read + [json.dumps(each, ensure_ascii=False) for each in defined]


class Usage(NamedTuple):
    """The model and the tokens of an answer, and how it ended, as far as the provider reports them."""

    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    #: Why the model stopped, in OpenAI's terms: `stop`, `length`, `content_filter` or `tool_calls`.
    finish_reason: str | None = None
    #: The functions that the model wants to be called, as OpenAI's chat completions have them:
    #: `{"id", "type": "function", "function": {"name", "arguments"}}`, the arguments as JSON in a string.
    tool_calls: Sequence[dict[str, Any]] | None = None


class Generator(Protocol):
    """Answers prompts.

    A generator may also have `is_remote`: whether it waits for another host instead of computing here. If so, a worker
    answers hundreds of prompts at a time, each in a thread, and the generator must be thread-safe. While it waits, it
    should leave a callback with `interruption.current().calling(…)` that ends the wait.

    What it can do besides answering a text is declared by its factory: see `factory.capable_of`.
    """

    @property
    def name(self) -> str:
        """Identifies the model and everything else that its answers depend on. Another name means other answers."""

    @property
    def max_batch_size(self) -> int:
        """The number of prompts that one task may carry: 1, unless answering takes almost no time.

        A task answers its prompts one after the other and completes them together. With more than 1, clients do not
        see the text grow.
        """

    def generate(self, request: GenerationRequest) -> Iterator[str | Usage]:
        """Yield the answer in chunks, which together are the response, and a `Usage` if it is known.

        Raises:
            ProviderError: it failed; `retryable` says whether to try again. Any other exception is retried too, but
                its message is not shown to the user.
            ProviderUnavailableError: it accepts no requests at the moment; that does not count as an attempt.
        """


class Embedder(Protocol):
    """Turns texts into vectors. Vectors are compared only with vectors by an embedder of the same name."""

    @property
    def name(self) -> str:
        """Identifies the model and its version. Vectors by another name cannot be compared."""

    @property
    def dimension(self) -> int:
        """The length of each vector."""

    @property
    def is_remote(self) -> bool:
        """Whether it waits for another host instead of computing here. If so, the API calls it in its event loop."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return a vector of unit length for each text: float32, shape (len(texts), dimension).

        Prompts are answered whatever it raises, and their vectors follow.

        Raises:
            ProviderError: it failed. If it is `retryable`, no text is the cause, and callers pause. After any other
                exception the texts are tried in smaller groups, to find those that it refuses.
        """


def message_texts(message: Message) -> list[str]:
    """The texts of a message: its content, or those of its parts, and the arguments of its tool calls."""
    content = message.get("content")
    parts = [content] if isinstance(content, str) else [part.get("text") for part in content or ()]
    calls = [call["function"]["arguments"] for call in message.get("tool_calls") or ()]
    return [text for text in (*parts, *calls) if text]


class Embedders:
    """The embedders of this process: the current one and, while users are being reindexed, the previous one."""

    def __init__(self, current: Embedder, previous: Embedder | None = None) -> None:
        self.current = current
        self._by_name = {embedder.name: embedder for embedder in (previous, current) if embedder is not None}

    def resolve(self, name: str | None) -> Embedder:
        """Return the embedder of that name, or the current one if this process does not have it."""
        return self._by_name.get(name or "", self.current)


def embed(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """Embed texts, and check and normalise the result: float32 of unit length, shape (len(texts), dimension).

    Raises:
        ProviderError: the embedder failed, or returned anything else than a vector for each text.
    """
    started = time.perf_counter()
    vectors = np.asarray(embedder.embed(texts), dtype=np.float32)
    metrics.embeddings.observe(time.perf_counter() - started)
    if vectors.shape != (len(texts), embedder.dimension):
        raise ProviderError(f"The embedder {embedder.name} did not return a vector for each text.", retryable=False)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise ProviderError(f"The embedder {embedder.name} returned a vector that has no direction.", retryable=False)
    unit: Vectors = vectors / lengths
    return unit
