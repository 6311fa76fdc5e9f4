"""Embeddings by any endpoint that implements OpenAI's API."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from shared.errors import ProviderError
from shared.providers import Vectors
from shared.providers.openai_endpoint import Endpoint
from shared.providers.openai_errors import InputTooLongError
from shared.providers.openai_vectors import read_vectors
from shared.settings import Settings

# OpenAI's limits are 8,191 tokens per text and 300,000 per call. A token has at least one byte, so counting bytes of
# UTF-8 stays within them. A longer text is cut; searches find it by its beginning. So is one that is too long for a
# smaller model: it is halved until the model takes it.
MAX_BYTES = 8_000
MIN_BYTES = 16  # a text that is refused though it is this short is refused for another reason
BATCH_TEXTS = 256
BATCH_BYTES = 300_000

#: The length in bytes that a model takes, by endpoint and model, where that is less: learned once in a process.
_lengths: dict[tuple[str, str], int] = {}

_SHORTENABLE = "text-embedding-3"


class OpenAIEmbedder:
    """Vectors by a model behind an endpoint.

    Its name does not contain the endpoint: the same model on another host returns comparable vectors.

    Args:
        dimension: The length of the vectors. OpenAI's third-generation models are asked for vectors of this length.
    """

    is_remote = True

    def __init__(self, endpoint: Endpoint, model: str, dimension: int) -> None:
        self.name = f"openai:{model}:{dimension}"
        self.dimension = dimension
        self._endpoint = endpoint
        self._model = model
        self._options: dict[str, Any] = {"encoding_format": "float"}
        if _SHORTENABLE in model:
            self._options["dimensions"] = dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = [np.empty((0, self.dimension), dtype=np.float32)]
        vectors += [self._embed_batch(batch) for batch in _batches([_cut(text, self._max_bytes) for text in texts])]
        return np.concatenate(vectors)

    @property
    def _max_bytes(self) -> int:
        return _lengths.get((self._endpoint.url, self._model), MAX_BYTES)

    def _embed_batch(self, texts: Sequence[str]) -> Vectors:
        """Embed a batch. If it holds too long a text, that one is found by halving the batch, and then is halved."""
        try:
            return self._request(texts)
        except InputTooLongError:
            if len(texts) == 1:
                return self._embed_beginning(texts[0])
        middle = len(texts) // 2
        return np.concatenate([self._embed_batch(self._cut_all(half)) for half in (texts[:middle], texts[middle:])])

    def _embed_beginning(self, text: str) -> Vectors:
        """Embed the longest beginning that the model takes, by halving, and remember its length."""
        length = len(text.encode())
        while True:
            length //= 2
            try:
                vectors = self._request([_cut(text, length)])
            except InputTooLongError:
                if length < MIN_BYTES:
                    raise
            else:
                _lengths[self._endpoint.url, self._model] = min(length, self._max_bytes)
                return vectors

    def _cut_all(self, texts: Sequence[str]) -> list[str]:
        """Cut texts to the length that has been learned by now."""
        return [_cut(text, self._max_bytes) for text in texts]

    def _request(self, texts: Sequence[str]) -> Vectors:
        payload = self._endpoint.post("embeddings", {"model": self._model, "input": list(texts), **self._options})
        vectors = read_vectors(payload, len(texts))
        self._check_length(vectors.shape[1])
        # Some servers do not return unit length. A zero vector stays as it is, and the caller refuses it.
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Vectors = np.divide(vectors, lengths, out=vectors, where=lengths > 0)
        return unit

    def _check_length(self, length: int) -> None:
        if length != self.dimension:
            raise ProviderError(
                f"{self._model} returns vectors of {length} numbers, but OPENAI_EMBEDDING_DIMENSIONS is "
                f"{self.dimension}. The operator must set it to {length}.",
                retryable=False,
            )


def _cut(text: str, length: int = MAX_BYTES) -> str:
    """Cut a text to at most these bytes, between characters; but leave at least one character."""
    return text.encode()[:length].decode(errors="ignore") or text[:1]


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the texts in order, in batches within the limits of a call."""
    batch: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if batch and (len(batch) == BATCH_TEXTS or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield batch


def make(settings: Settings) -> OpenAIEmbedder:
    """Create the embedder of the settings.

    It uses the generator's endpoint and key unless it has its own. Another endpoint never gets the generator's key.
    """
    url, key = settings.openai_embedding_base_url, settings.openai_embedding_api_key
    endpoint = Endpoint(
        url or settings.openai_base_url,
        (key if url or key else settings.openai_api_key).get_secret_value(),
        timeout_seconds=settings.openai_embedding_timeout_seconds,
        settings_prefix="OPENAI_EMBEDDING" if url or key else "OPENAI",
        timeout_setting="OPENAI_EMBEDDING_TIMEOUT_SECONDS",
    )
    return OpenAIEmbedder(endpoint, settings.openai_embedding_model, settings.openai_embedding_dimensions)
