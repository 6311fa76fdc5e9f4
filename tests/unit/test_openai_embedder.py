"""The embedder `openai`: its requests to an endpoint, and its handling of the responses."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from shared.errors import ProviderError, ProviderUnavailableError
from shared.providers import Embedder, embed
from shared.providers.factory import make_embedder
from tests.support.openai_server import OpenAIServer, Reply
from tests.support.servers import make_settings

TEXTS = ["tides of the ocean", "a haiku about rust", "the price of gold"]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(dimension=8) as running:
        yield running


def embedder(server: OpenAIServer, **changes: object) -> Embedder:
    defaults = {
        "embedder": "openai",
        "openai_base_url": server.url,
        "openai_embedding_model": "text-embedding-3-small",
        "openai_embedding_dimensions": 8,
        "openai_embedding_timeout_seconds": 0.3,
    }
    return make_embedder(make_settings(database_url="postgresql://x", redis_url="redis://x", **(defaults | changes)))


def answer(vectors: list[list[float]], indexes: list[int] | None = None) -> Reply:
    """A response with these vectors."""
    indexes = list(range(len(vectors))) if indexes is None else indexes
    data = [
        {"object": "embedding", "index": i, "embedding": vector} for i, vector in zip(indexes, vectors, strict=True)
    ]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return Reply(body=json.dumps({"object": "list", "model": "m", "data": data, "usage": usage}))


def test_each_text_gets_its_vector(server: OpenAIServer) -> None:
    made = embedder(server)
    assert (made.name, made.dimension, made.is_remote) == ("openai:text-embedding-3-small:8", 8, True)
    vectors = made.embed(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((3, 8), np.float32)
    assert np.allclose(vectors, [server.vector(text) for text in TEXTS])
    assert server.requests[0].body == {
        "model": "text-embedding-3-small",
        "input": TEXTS,
        "dimensions": 8,
        "encoding_format": "float",
    }


def test_an_empty_list_of_texts_causes_no_request(server: OpenAIServer) -> None:
    assert embedder(server).embed([]).shape == (0, 8)
    assert server.requests == []


def test_dimensions_are_sent_only_to_models_that_support_them(server: OpenAIServer) -> None:
    embedder(server, openai_embedding_model="nomic-embed-text").embed(TEXTS)
    assert "dimensions" not in server.requests[0].body


def test_the_name_depends_on_model_and_dimension_and_not_on_the_endpoint(server: OpenAIServer) -> None:
    assert embedder(server).name == embedder(server, openai_base_url="http://127.0.0.1:1/v1").name
    assert embedder(server).name != embedder(server, openai_embedding_dimensions=4).name


def test_many_texts_are_sent_in_calls_within_the_limits(server: OpenAIServer) -> None:
    short, long = [f"number {i}" for i in range(600)], [f"{i} " + "x" * 7_000 for i in range(100)]
    vectors = embedder(server, openai_embedding_timeout_seconds=10).embed(short + long)
    assert np.allclose(vectors, [server.vector(text) for text in short + long], atol=1e-6)
    asked = [request.body["input"] for request in server.requests]
    assert [text for texts in asked for text in texts] == short + long
    assert max(len(texts) for texts in asked) == 256
    assert max(sum(len(text) for text in texts) for texts in asked) <= 300_000
    assert len(asked) == 5


def test_a_long_text_is_cut_between_characters_to_8000_bytes(server: OpenAIServer) -> None:
    embedder(server).embed(["x" + "€" * 5_000])
    assert server.requests[0].body["input"] == ["x" + "€" * 2_666]  # 7,999 bytes


def test_vectors_are_put_in_order_and_scaled_to_unit_length(server: OpenAIServer) -> None:
    first, second = [3.0] + [0.0] * 7, [0.0, 0.5] + [0.0] * 6
    server.script_embeddings(answer([second, first], [1, 0]))
    assert embedder(server).embed(["a", "b"]).tolist() == np.eye(8)[:2].tolist()


def test_a_wrong_dimension_names_the_setting(server: OpenAIServer) -> None:
    server.script_embeddings(answer([[1.0, 0.0, 0.0]]))
    with pytest.raises(ProviderError, match="of 3 numbers, but OPENAI_EMBEDDING_DIMENSIONS is 8") as raised:
        embedder(server).embed(["a"])
    assert not raised.value.retryable


ZERO = [0.0] * 8
ONE = [1.0, *ZERO[1:]]


@pytest.mark.parametrize(
    "reply",
    [
        answer([ONE]),
        answer([ONE, ONE, ONE]),
        answer([ONE, ONE], [0, 0]),
        answer([ONE, ZERO]),
        answer([ONE, [float("nan"), *ZERO[1:]]]),
        Reply(body='{"object": "list", "data": null}'),
        Reply(body='{"object": "list", "data": [{"embedding": ["a"]}]}'),
        Reply(body='{"object": "list", "data": [{"ind'),
        Reply(body="<html>It works!</html>", headers={"Content-Type": "text/html"}),
    ],
    ids=["too few", "too many", "duplicate index", "zero", "NaN", "null", "not numbers", "truncated", "HTML"],
)
def test_an_invalid_response_is_a_provider_error(server: OpenAIServer, reply: Reply) -> None:
    server.script_embeddings(reply)
    with pytest.raises(ProviderError):
        embed(embedder(server), ["a", "b"])


def test_an_unavailable_endpoint_is_distinguished_from_a_failing_one(server: OpenAIServer) -> None:
    made = embedder(server)
    server.script_embeddings(Reply(status=429, headers={"Retry-After": "7"}), Reply(status=500), Reply(slow=5))
    with pytest.raises(ProviderUnavailableError) as busy:
        made.embed(["a"])
    assert busy.value.retry_after == 7
    for _ in ("fails", "times out"):
        with pytest.raises(ProviderError) as failed:
            made.embed(["a"])
        assert not isinstance(failed.value, ProviderUnavailableError)
    with server.stopped(), pytest.raises(ProviderUnavailableError):
        made.embed(["a"])
    assert made.embed(["a"]).shape == (1, 8)
    assert len(server.requests) == 4  # the library repeated none


@pytest.mark.parametrize(
    ("own", "path", "key"),
    [({}, "/v1/embeddings", "general"), ({"openai_embedding_api_key": "its own"}, "/v1/embeddings", "its own")],
)
def test_the_generators_key_is_used_if_the_embedder_has_none(
    server: OpenAIServer, own: dict[str, str], path: str, key: str
) -> None:
    embedder(server, openai_api_key="general", **own).embed(["a"])
    assert (server.requests[0].path, server.requests[0].headers["Authorization"]) == (path, f"Bearer {key}")


def test_another_endpoint_does_not_get_the_generators_key(server: OpenAIServer) -> None:
    other = {
        "openai_base_url": "http://127.0.0.1:1/v1",
        "openai_api_key": "general",
        "openai_embedding_base_url": server.url,
    }
    assert embedder(server, **other).embed(["a"]).shape == (1, 8)
    assert "general" not in server.requests[0].headers["Authorization"]
