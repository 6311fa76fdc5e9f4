"""Where answers and embeddings come from.

The settings GENERATOR and EMBEDDER name a built-in provider, or the dotted path of your own (`package.module:factory`):
a callable that takes the settings and returns a `Generator` or an `Embedder`.
"""

from collections.abc import Callable, Iterator, Sequence
from pkgutil import resolve_name
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shared.errors import ProviderError
from shared.settings import Settings, SettingsError

Vectors = npt.NDArray[np.float32]


class Generator(Protocol):
    """Answers prompts."""

    @property
    def at_once(self) -> int:
        """How many prompts a task may carry: 1, unless answering takes next to no time.

        A task answers one after the other, and completes them together.
        """

    def generate(self, prompt_text: str) -> Iterator[str]:
        """Yields the answer in chunks, in order; together they are the response.

        Raises:
            ProviderError: it failed; `retryable` tells whether to try again. Any other exception is retried too, but
                its message is not shown to the user.
        """


class Embedder(Protocol):
    """Turns texts into vectors. Vectors are compared only with those of an embedder of the same name."""

    @property
    def name(self) -> str:
        """Identifies the model and its version: another name means incomparable vectors."""

    @property
    def dimension(self) -> int:
        """The length of each vector."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector of unit length a text: float32, shape (len(texts), dimension).

        Raises:
            ProviderError: it failed.
        """


_BUILT_IN = {
    "simulated": "shared.providers.simulated:make",
    "hashing": "shared.providers.hashing:make",
}


def make_generator(settings: Settings) -> Generator:
    """The generator that GENERATOR names. Raises SettingsError if there is none, or if it is none."""
    generator: Generator = _factory("GENERATOR", settings.generator)(settings)
    for name in ("generate", "at_once"):
        if not hasattr(generator, name):
            raise SettingsError(f"GENERATOR={settings.generator!r} is no Generator: it has no `{name}`.")
    return generator


def make_embedder(settings: Settings) -> Embedder:
    """The embedder that EMBEDDER names. Raises SettingsError if there is none."""
    embedder: Embedder = _factory("EMBEDDER", settings.embedder)(settings)
    return embedder


class Embedders:
    """The embedders that this process has: the current one, and, while vectors are made anew, the one before it."""

    def __init__(self, current: Embedder, previous: Embedder | None = None) -> None:
        self.current = current
        self._by_name = {embedder.name: embedder for embedder in (previous, current) if embedder is not None}

    def usable(self, name: str | None) -> Embedder:
        """The embedder of that name, or, if it is not to be had, the current one."""
        return self._by_name.get(name or "", self.current)


def make_embedders(settings: Settings) -> Embedders:
    """The embedders that EMBEDDER and PREVIOUS_EMBEDDER name. Raises SettingsError if there is none."""
    previous = settings.previous_embedder
    return Embedders(make_embedder(settings), _factory("PREVIOUS_EMBEDDER", previous)(settings) if previous else None)


def embed(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """One vector of unit length a text: float32, shape (len(texts), dimension).

    Raises:
        ProviderError: it failed, or gave something else.
    """
    vectors = np.asarray(embedder.embed(texts), dtype=np.float32)
    if vectors.shape != (len(texts), embedder.dimension):
        raise ProviderError(f"The embedder {embedder.name} did not give a vector for each text.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise ProviderError(f"The embedder {embedder.name} did not give a vector with a direction.")
    unit: Vectors = vectors / lengths
    return unit


def _factory(setting: str, name: str) -> Callable[[Settings], Any]:
    try:
        factory: Callable[[Settings], Any] = resolve_name(_BUILT_IN.get(name, name))
    except (ValueError, ImportError, AttributeError) as error:
        raise SettingsError(
            f"{setting}={name!r} is neither a built-in provider nor an importable package.module:factory."
        ) from error
    return factory
