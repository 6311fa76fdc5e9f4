"""Where answers and embeddings come from: what a generator and an embedder do.

`factory.py` makes those that the settings name.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from shared.errors import ProviderError
from shared.telemetry import metrics

Vectors = npt.NDArray[np.float32]


class Exchange(NamedTuple):
    """A prompt, and what it was answered."""

    prompt_text: str
    response_text: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What a generator is asked."""

    prompt_text: str
    #: Exchanges that the same user had before, oldest first: what the answer is to know of.
    history: Sequence[Exchange] = ()
    #: The same for every attempt at a prompt, and for none of another.
    idempotency_key: str = ""


class Usage(NamedTuple):
    """What an answer took, as far as the provider tells."""

    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Generator(Protocol):
    """Answers prompts."""

    @property
    def name(self) -> str:
        """Identifies the model and all that its answers depend on: another name means other answers."""

    @property
    def max_batch_size(self) -> int:
        """How many prompts a task may carry: 1, unless answering takes next to no time.

        A task answers one after the other, and completes them together. With more than 1, nobody watches the text grow.
        """

    def generate(self, request: GenerationRequest) -> Iterator[str | Usage]:
        """Yields the answer in chunks, in order, which together are the response; and a `Usage`, if it knows one.

        Raises:
            ProviderError: it failed; `retryable` tells whether to try again. Any other exception is retried too, but
                its message is not shown to the user.
            ProviderUnavailableError: it takes nothing at the moment; that does not count as an attempt.
        """


class Embedder(Protocol):
    """Turns texts into vectors. Vectors are compared only with those of an embedder of the same name."""

    @property
    def name(self) -> str:
        """Identifies the model and its version: another name means incomparable vectors."""

    @property
    def dimension(self) -> int:
        """The length of each vector."""

    @property
    def is_remote(self) -> bool:
        """Whether it waits for another host rather than computing here: the API then calls it in its event loop."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector of unit length a text: float32, shape (len(texts), dimension).

        Raises:
            ProviderError: it failed.
        """


class Embedders:
    """The embedders that this process has: the current one, and, while vectors are made anew, the one before it."""

    def __init__(self, current: Embedder, previous: Embedder | None = None) -> None:
        self.current = current
        self._by_name = {embedder.name: embedder for embedder in (previous, current) if embedder is not None}

    def resolve(self, name: str | None) -> Embedder:
        """The embedder of that name, or, if it is not to be had, the current one."""
        return self._by_name.get(name or "", self.current)


def embed(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """One vector of unit length a text: float32, shape (len(texts), dimension).

    Raises:
        ProviderError: it failed, or gave something else.
    """
    begun = time.perf_counter()
    vectors = np.asarray(embedder.embed(texts), dtype=np.float32)
    metrics.embeddings.observe(time.perf_counter() - begun)
    if vectors.shape != (len(texts), embedder.dimension):
        raise ProviderError(f"The embedder {embedder.name} did not give a vector for each text.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise ProviderError(f"The embedder {embedder.name} did not give a vector with a direction.")
    unit: Vectors = vectors / lengths
    return unit
