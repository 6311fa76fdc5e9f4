"""Embeddings by any endpoint that implements OpenAI's API."""

from collections.abc import Iterator, Sequence

import numpy as np
from openai import omit

from shared.errors import ProviderError
from shared.providers import Vectors
from shared.providers.openai_endpoint import Endpoint
from shared.settings import Settings

# OpenAI's limits are 8,191 tokens per text and 300,000 per call. A token has at least one byte, so counting bytes of
# UTF-8 stays within them. A longer text is cut; searches find it by its beginning.
MAX_BYTES = 8_000
BATCH_TEXTS = 256
BATCH_BYTES = 300_000

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
        self._requested_dimension = dimension if _SHORTENABLE in model else omit

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = [np.empty((0, self.dimension), dtype=np.float32)]
        vectors += [self._request(batch) for batch in _batches([_cut(text) for text in texts])]
        return np.concatenate(vectors)

    def _request(self, texts: Sequence[str]) -> Vectors:
        with self._endpoint.errors():
            response = self._endpoint.client.embeddings.create(
                model=self._model, input=list(texts), dimensions=self._requested_dimension, encoding_format="float"
            )
            data = sorted(response.data, key=lambda embedding: embedding.index)
            if [embedding.index for embedding in data] != list(range(len(texts))):
                raise ProviderError("The provider did not return a vector for each text.")
            for embedding in data:
                self._check_length(len(embedding.embedding))
            vectors: Vectors = np.array([embedding.embedding for embedding in data], dtype=np.float32)
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


def _cut(text: str) -> str:
    """Cut a text to at most MAX_BYTES, between characters."""
    return text.encode()[:MAX_BYTES].decode(errors="ignore")


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
    )
    return OpenAIEmbedder(endpoint, settings.openai_embedding_model, settings.openai_embedding_dimensions)
