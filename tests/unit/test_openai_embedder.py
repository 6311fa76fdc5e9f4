"""The embedder `openai`: its requests to an endpoint, and its handling of the responses."""

import json
from base64 import b64encode
from collections.abc import Iterator

import numpy as np
import pytest

from shared.errors import ProviderError, ProviderOverloadedError, ProviderUnavailableError
from shared.providers import Embedder, embed, openai_embedder, openai_parameters
from shared.providers.factory import make_embedder
from tests.support.openai_server import OpenAIServer, ReceivedRequest, Reply
from tests.support.servers import make_settings

TEXTS = ["tides of the ocean", "a haiku about rust", "the price of gold"]


@pytest.fixture(autouse=True)
def nothing_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what tests before have learned of an endpoint, which may have had the same port."""
    monkeypatch.setattr(openai_parameters, "_dialects", {})
    monkeypatch.setattr(openai_embedder, "_lengths", {})


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
    return make_embedder(make_settings(**(defaults | changes)))


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


ROW, OTHER = np.eye(8)[0].tolist(), np.eye(8)[1].tolist()
IN_BASE64 = b64encode(np.eye(8, dtype="<f4")[0].tobytes()).decode()

#: The dialects of embedders: what they answer to two texts.
DIALECTS = {
    "as OpenAI does": {"data": [{"index": 0, "embedding": ROW}, {"index": 1, "embedding": OTHER}]},
    "another order": {"data": [{"index": 1, "embedding": OTHER}, {"index": 0, "embedding": ROW}]},
    "no index": {"data": [{"embedding": ROW}, {"embedding": OTHER}]},
    "null index": {"data": [{"index": None, "embedding": ROW}, {"index": None, "embedding": OTHER}]},
    "base64": {"data": [{"index": 0, "embedding": IN_BASE64}, {"index": 1, "embedding": OTHER}]},
    "nested": {"data": [{"embedding": [ROW]}, {"embedding": [[OTHER]]}]},
    "a list of rows": [{"embedding": ROW}, {"embedding": OTHER}],
    "a list of lists": [ROW, OTHER],
    "Ollama's own": {"embeddings": [ROW, OTHER]},
    "integers": {"data": [[1, 0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]]},
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_dialects_of_embedders_are_understood(server: OpenAIServer, dialect: str) -> None:
    server.script_embeddings(Reply(body=json.dumps(DIALECTS[dialect])))
    assert embedder(server).embed(["a", "b"]).tolist() == [ROW, OTHER]


@pytest.mark.parametrize("body", [ROW, [ROW], {"embedding": ROW}, {"data": {"embedding": ROW}}])
def test_the_vector_of_one_text_may_come_by_itself(server: OpenAIServer, body: object) -> None:
    server.script_embeddings(Reply(body=json.dumps(body)))
    assert embedder(server).embed(["a"]).tolist() == [ROW]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([ROW], "returned 1 vectors for 2 texts."),
        ([ROW, OTHER, ROW], "returned 3 vectors for 2 texts."),
        ([{"index": 0, "embedding": ROW}, {"index": 2, "embedding": OTHER}], "an index is missing."),
        ([ROW, OTHER[:5]], "vectors of different lengths."),
        ([ROW[:5], OTHER[:5]], "vectors of 5 numbers, but OPENAI_EMBEDDING_DIMENSIONS is 8."),
        ([ROW, [ROW, OTHER]], "returned 2 vectors for one text."),
        ([ROW, ["1"] * 8], "a vector does not consist of numbers."),
        ([ROW, [None] * 8], "a vector does not consist of numbers."),
        ([ROW, [True] * 8], "a vector does not consist of numbers."),
        ([ROW, []], "a vector does not consist of numbers."),
        ([ROW, {"index": 1}], "a vector does not consist of numbers."),
        ([ROW, "not base64!"], "a vector is not in base64."),
        ([ROW, IN_BASE64[:4]], "a vector is not in base64."),
    ],
)
def test_malformed_vectors_are_refused_with_a_clear_sentence(server: OpenAIServer, rows: object, says: str) -> None:
    server.script_embeddings(Reply(body=json.dumps({"data": rows})))
    with pytest.raises(ProviderError) as raised:
        embedder(server).embed(["a", "b"])
    assert says in str(raised.value)


def test_a_failure_with_status_200_is_judged_like_its_real_status(server: OpenAIServer) -> None:
    server.script_embeddings(Reply(body='{"error": {"code": 429, "message": "Slow down"}}'))
    with pytest.raises(ProviderOverloadedError, match="Slow down"):
        embedder(server).embed(["a"])


@pytest.mark.parametrize("parameter", ["encoding_format", "dimensions"])
def test_a_refused_parameter_is_left_out_and_never_sent_again(server: OpenAIServer, parameter: str) -> None:
    server.script_embeddings(Reply(status=400, message=f"Unknown parameter: {parameter}"))
    for _ in range(2):
        assert embedder(server).embed(["a"]).shape == (1, 8)
    assert [parameter in request.body for request in server.requests] == [True, False, False]


TOO_LONG = (
    Reply(status=400, message="This model's maximum context length is 512 tokens. However, you requested 900 tokens."),
    Reply(status=400, body='{"error": "the input length exceeds the context length"}'),
    Reply(status=413, body='{"error": "`inputs` must have less than 512 tokens. Given: 3001"}'),
    Reply(status=413, body="<html>nginx</html>"),
    Reply(status=422, body='{"detail": [{"msg": "Input is too long"}]}'),
    Reply(status=500, message="input (767 tokens) is too large to process. increase the physical batch size"),
    Reply(body='{"error": {"code": "context_length_exceeded", "message": "input is too long"}}'),
)


class SmallServer(OpenAIServer):
    """A server that refuses requests with a text longer than `limit` characters."""

    def __init__(self, limit: int, refusal: Reply = TOO_LONG[0]) -> None:
        super().__init__(dimension=8)
        self._limit, self._refusal = limit, refusal

    def reply_to(self, request: ReceivedRequest) -> Reply:
        is_too_long = any(len(text) > self._limit for text in request.body["input"])
        return self._refusal if is_too_long else super().reply_to(request)

    @property
    def texts(self) -> list[list[str]]:
        """The texts of each request."""
        return [request.body["input"] for request in self.requests]


@pytest.mark.parametrize("refusal", TOO_LONG)
def test_a_text_that_is_too_long_is_halved_between_characters_until_it_fits(refusal: Reply) -> None:
    with SmallServer(300, refusal) as server:
        embedder(server).embed(["€" * 1_001])
        assert server.texts == [["€" * 1_001], ["€" * 500], ["€" * 250]]


def test_the_length_that_a_model_takes_is_remembered() -> None:
    with SmallServer(300) as server:
        embedder(server).embed(["x" * 1_000])
        embedder(server).embed(["y" * 1_000, "short"])
        assert server.texts[3:] == [["y" * 250, "short"]]
        embedder(server, openai_embedding_model="other").embed(["z" * 1_000])
        assert server.texts[4] == ["z" * 1_000]


def test_only_the_texts_of_a_batch_that_are_too_long_are_shortened() -> None:
    texts = ["a" * 100, "b" * 240, "c" * 1_000, "d" * 200, "e" * 50]
    with SmallServer(300) as server:
        vectors = embedder(server).embed(texts)
        shown = [*texts[:2], "c" * 250, *texts[3:]]
        assert np.allclose(vectors, [server.vector(text) for text in shown], atol=1e-6)


def test_a_text_that_is_refused_however_short_it_is_fails() -> None:
    with SmallServer(0) as server, pytest.raises(ProviderError, match="maximum context length"):
        embedder(server).embed(["x" * 1_000])
    assert len(server.requests) < 12


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
    assert len(server.requests) == 4  # none was repeated


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
    assert "Authorization" not in server.requests[0].headers
