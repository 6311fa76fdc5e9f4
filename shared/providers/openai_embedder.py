"""Embeddings by any endpoint that speaks OpenAI's protocol."""

from collections.abc import Iterator, Sequence

import numpy as np
from openai import omit

from shared.errors import ProviderError
from shared.providers import Vectors
from shared.providers.openai_endpoint import Endpoint
from shared.settings import Settings

# OpenAI's limits: 8,191 tokens a text, 300,000 a call. A token of theirs is at least one byte, so that counting bytes
# of UTF-8 keeps within them. A longer text is cut, and found by its beginning.
MAX_BYTES = 8_000
BATCH_TEXTS = 256
BATCH_BYTES = 300_000

_CAN_SHORTEN = "text-embedding-3"


class OpenAIEmbedder:
    """Vectors of a model behind an endpoint.

    The name does not tell where that is: the same model elsewhere gives comparable vectors.

    Args:
        dimension: The length of its vectors. Models of OpenAI's third generation are asked for vectors of that length.
    """

    is_remote = True

    def __init__(self, endpoint: Endpoint, model: str, dimension: int) -> None:
        self.name = f"openai:{model}:{dimension}"
        self.dimension = dimension
        self._endpoint = endpoint
        self._model = model
        self._asked_dimension = dimension if _CAN_SHORTEN in model else omit

    def embed(self, texts: Sequence[str]) -> Vectors:
        found = [np.empty((0, self.dimension), dtype=np.float32)]
        found += [self._ask(batch) for batch in _batches([_cut(text) for text in texts])]
        return np.concatenate(found)

    def _ask(self, texts: Sequence[str]) -> Vectors:
        with self._endpoint.errors():
            response = self._endpoint.client.embeddings.create(
                model=self._model, input=list(texts), dimensions=self._asked_dimension, encoding_format="float"
            )
            data = sorted(response.data, key=lambda embedding: embedding.index)
            if [embedding.index for embedding in data] != list(range(len(texts))):
                raise ProviderError("The provider did not give a vector for each text.")
            for embedding in data:
                self._check(len(embedding.embedding))
            vectors: Vectors = np.array([embedding.embedding for embedding in data], dtype=np.float32)
        # Some servers do not scale. What has no direction is left as it is, for who asked to refuse.
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Vectors = np.divide(vectors, lengths, out=vectors, where=lengths > 0)
        return unit

    def _check(self, length: int) -> None:
        if length != self.dimension:
            raise ProviderError(
                f"{self._model} gives vectors of {length} numbers, and OPENAI_EMBEDDING_DIMENSIONS is "
                f"{self.dimension}: the operator must set it to {length}.",
                retryable=False,
            )


def _cut(text: str) -> str:
    """The beginning of the text, whole characters that are at most LONGEST_BYTES."""
    return text.encode()[:MAX_BYTES].decode(errors="ignore")


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in order, as many at a time as a call may have."""
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
    """The endpoint and the key are those of the generator, where there are none of its own; but another endpoint never
    gets the generator's key."""
    url, key = settings.openai_embedding_base_url, settings.openai_embedding_api_key
    endpoint = Endpoint(
        url or settings.openai_base_url,
        (key if url or key else settings.openai_api_key).get_secret_value(),
        timeout_seconds=settings.openai_embedding_timeout_seconds,
        settings_prefix="OPENAI_EMBEDDING" if url or key else "OPENAI",
    )
    return OpenAIEmbedder(endpoint, settings.openai_embedding_model, settings.openai_embedding_dimensions)
