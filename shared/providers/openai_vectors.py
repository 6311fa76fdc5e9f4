"""Reads the vectors in a response of an embedder, in OpenAI's shape or in another one that servers use."""

from base64 import b64decode
from typing import Any

import numpy as np

from shared.errors import ProviderError
from shared.providers import Vectors
from shared.providers.openai_errors import unexpected_response


def read_vectors(payload: Any, count: int) -> Vectors:
    """Return the vectors of a response in the order of the texts: float32, shape (count, any).

    Rows may lack `index` (then they are in order), be in base64 or lists in lists, or come without names.

    Raises:
        ProviderError: there is not one vector for each text, or one is not of numbers.
    """
    rows = [_row(each) for each in _listed(payload)]
    if len(rows) != count:
        raise ProviderError(f"The provider returned {len(rows)} vectors for {count} texts.")
    places = [index for index, _ in rows if index is not None]
    if len(places) < count:  # without an index, or not all have one: they are in order
        places = list(range(count))
    if sorted(places) != list(range(count)):
        raise ProviderError("The provider did not return a vector for each text: an index is missing.")
    by_place = dict(zip(places, (embedding for _, embedding in rows), strict=True))
    vectors = [_vector(by_place[place]) for place in range(count)]
    if len({len(vector) for vector in vectors}) > 1:
        raise ProviderError("The provider returned vectors of different lengths.")
    return np.stack(vectors)


def _listed(payload: Any) -> list[Any]:
    """Return the rows of a response."""
    if isinstance(payload, dict):
        payload = next((payload[key] for key in ("data", "embeddings", "embedding") if key in payload), None)
    if isinstance(payload, dict):
        return [payload]
    if not isinstance(payload, list):
        raise unexpected_response()
    return [payload] if payload and isinstance(payload[0], int | float) else payload


def _row(row: Any) -> tuple[int | None, Any]:
    """Return the index of a row, if it has one, and its vector."""
    if not isinstance(row, dict):
        return None, row
    index = row.get("index")
    return (index if type(index) is int else None), row.get("embedding")


def _vector(given: Any) -> Vectors:
    if isinstance(given, str):
        return _from_base64(given)
    while isinstance(given, list) and len(given) == 1 and isinstance(given[0], list):
        given = given[0]
    if isinstance(given, list) and given and isinstance(given[0], list):
        raise ProviderError(f"The provider returned {len(given)} vectors for one text.")
    if not isinstance(given, list) or not given or not all(type(each) in (float, int) for each in given):
        raise unexpected_response("a vector does not consist of numbers")
    return np.array(given, dtype=np.float64).astype(np.float32)


def _from_base64(text: str) -> Vectors:
    """Return the little-endian float32 numbers of a text."""
    try:
        return np.frombuffer(b64decode(text, validate=True), dtype="<f4").astype(np.float32)
    except ValueError:
        raise unexpected_response("a vector is not in base64") from None
