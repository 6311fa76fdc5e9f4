"""Models and embeddings by the Python SDK. Each function is a test."""

import math

from openai import OpenAI

EMBEDDER = "hashing-1"


def the_models_are_listed(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]  # all pages
    assert names == ["default", EMBEDDER]


def a_model_is_found_by_its_name(client: OpenAI) -> None:
    assert client.models.retrieve(EMBEDDER).id == EMBEDDER


def texts_have_vectors(client: OpenAI) -> None:
    found = client.embeddings.create(model=EMBEDDER, input=["tides", "the moon"])  # as base64, which the SDK decodes
    assert [len(each.embedding) for each in found.data] == [384, 384]
    assert math.isclose(sum(x * x for x in found.data[0].embedding), 1, abs_tol=1e-4)


def floats_are_the_numbers_of_base64(client: OpenAI) -> None:
    (floats,) = client.embeddings.create(model=EMBEDDER, input="tides", encoding_format="float").data
    (decoded,) = client.embeddings.create(model=EMBEDDER, input="tides").data
    pairs = zip(floats.embedding, decoded.embedding, strict=True)
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in pairs)
