"""What all of `/v1` shares: errors, keys, paths, headers; and models and embeddings."""

import base64
from collections.abc import Callable

import numpy as np
import pytest
from flask import Flask
from openai.types import CreateEmbeddingResponse, Model
from sqlalchemy import update
from werkzeug.test import TestResponse

from api.services import Services
from shared.db.engine import Sessions
from shared.db.models import ApiKey
from shared.openai.embedding_request import MAX_INPUTS
from shared.providers.hashing import HashingEmbedder
from tests.support import chat
from tests.support.chat import PATH, assert_error
from tests.support.client import ApiUser

EMBEDDINGS = "/v1/embeddings"


def embed(caller: ApiUser, *texts: str, **fields: object) -> TestResponse:
    inputs = {"input": list(texts)} if texts else {}
    return caller.post(EMBEDDINGS, json={"model": "hashing-1"} | inputs | fields)


class TestErrors:
    """Each error below `/v1` has OpenAI's shape, with the status and the headers of the native API."""

    def test_without_a_key_it_is_401(self, app: Flask) -> None:
        response = app.test_client().get("/v1/models", headers={"Authorization": "Bearer pw_wrong"})
        error = assert_error(response, 401)
        assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
        assert response.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v1/chat", "/v1/models/none/such"])
    def test_an_unknown_path_is_404(self, shared_alice: ApiUser, path: str) -> None:
        assert assert_error(shared_alice.get(path), 404)["type"] == "not_found_error"

    def test_a_wrong_method_is_405_and_names_the_right_one(self, shared_alice: ApiUser) -> None:
        response = shared_alice.call("PUT", PATH)
        assert_error(response, 405)
        assert "POST" in response.headers["Allow"]

    def test_a_body_that_is_too_large_is_413(self, make_app: Callable[..., tuple[Flask, Services]]) -> None:
        alice = ApiUser(make_app(max_body_bytes=1024)[0], "alice")
        assert_error(chat.create(alice, "x" * 2_000), 413)

    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            ({"data": "{}", "content_type": "text/plain"}, 415),
            ({"data": "{", "content_type": "application/json"}, 400),
            ({"data": "[]", "content_type": "application/json"}, 400),
        ],
    )
    def test_a_body_that_is_not_json_is_refused(self, shared_alice: ApiUser, sent: dict, status: int) -> None:
        assert_error(shared_alice.post(PATH, **sent), status)

    @pytest.mark.parametrize(
        ("fields", "param", "says"),
        [
            ({"n": 2}, "n", "n must be 1."),
            ({"audio": {}}, "audio", "audio is not served here."),
            ({"best_of": 2}, "best_of", "best_of is not known."),
            ({"messages": None}, "messages", "messages must be a list."),
            (
                {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
                "messages[0].content[0].text",
                "messages[0].content[0].text is required.",
            ),
            ({"tool_choice": "required"}, "tool_choice", "tool_choice needs tools."),
            (
                {"tools": [chat.WEATHER], "tool_choice": {"type": "function", "function": {"name": "f"}}},
                "tool_choice",
                "tool_choice names f, which is not in tools.",
            ),
            (
                {"max_tokens": 1, "max_completion_tokens": 2},
                "max_completion_tokens",
                "max_completion_tokens is the new name of max_tokens: use one of them.",
            ),
            (
                {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
                "response_format.json_schema.name",
                "response_format.json_schema.name must have 1 to 64 letters, digits, underscores and hyphens.",
            ),
            ({"model": "none"}, "model", "There is no model none. Known models: default."),
            ({"reasoning_effort": "low"}, "reasoning_effort", "The model default does not support: reasoning_effort."),
        ],
    )
    def test_a_parameter_that_is_not_served_is_400_with_its_name(
        self, shared_alice: ApiUser, fields: dict, param: str | None, says: str
    ) -> None:
        error = assert_error(chat.create(shared_alice, **fields), 400)
        assert (error["type"], error["param"], error["message"]) == ("invalid_request_error", param, says)

    def test_thousands_of_unknown_parameters_are_one_error(self, shared_alice: ApiUser) -> None:
        error = assert_error(chat.create(shared_alice, **{f"key{i}": i for i in range(60_000)}), 400)
        assert "60002 names" in error["message"]

    def test_over_the_rate_limit_it_is_429_with_retry_after(
        self, make_app: Callable[..., tuple[Flask, Services]]
    ) -> None:
        alice = ApiUser(make_app(prompt_rate_limit="1/hour")[0], "alice")
        chat.stream(alice).close()
        response = chat.create(alice)
        error = assert_error(response, 429)
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert int(response.headers["Retry-After"]) > 0
        assert "RateLimit" in response.headers

    def test_over_budget_it_is_429_that_sdks_do_not_retry(self, alice: ApiUser) -> None:
        poor = alice.with_key(monthly_tokens=1, scopes=["prompts:read", "prompts:write"])
        response = chat.create(poor)
        assert assert_error(response, 429)["code"] == "insufficient_quota"
        assert response.headers["X-Should-Retry"] == "false"

    def test_an_overloaded_service_is_503_with_retry_after(
        self, make_app: Callable[..., tuple[Flask, Services]]
    ) -> None:
        alice = ApiUser(make_app(backlog_limit=1)[0], "alice")
        chat.stream(alice).close()
        response = chat.create(alice)
        assert assert_error(response, 503)["code"] == "overloaded"
        assert response.headers["Retry-After"]

    def test_an_overloaded_service_refuses_submissions_before_it_reads_them(
        self, make_app: Callable[..., tuple[Flask, Services]]
    ) -> None:
        app = make_app(backlog_limit=1)[0]
        alice = ApiUser(app, "alice")
        chat.stream(alice).close()
        chat.create(alice)  # is refused, and shows that the backlog is full
        for path in ("/v1/chat/completions", "/v1/chat/completions/", "/v1/responses", "/v1/responses/"):
            response = app.test_client().post(path, data=b"no JSON", headers={"X-Request-ID": "mine"})
            assert assert_error(response, 503)["code"] == "overloaded", path
            assert (response.headers["Retry-After"], response.headers["X-Request-ID"]) == ("2", "mine")
        assert alice.get("/v1/models").status_code == embed(alice, "x").status_code == 200

    def test_an_unexpected_error_is_500(self, app: Flask, alice: ApiUser, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(HashingEmbedder, "name", property(lambda _: 1 / 0))
        assert assert_error(embed(alice, "x"), 500)["type"] == "server_error"

    def test_the_native_api_keeps_its_problems(self, shared_alice: ApiUser) -> None:
        assert shared_alice.get("/v2/models").content_type == "application/problem+json"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/default", "/v1/models/hashing-1"])
def test_paths_work_with_and_without_their_slash(shared_alice: ApiUser, path: str) -> None:
    assert shared_alice.get(path).json == shared_alice.get(f"{path}/").json
    assert shared_alice.get(path).status_code == 200


def test_a_browser_may_send_what_sdks_send(make_app: Callable[..., tuple[Flask, Services]]) -> None:
    client = make_app(allowed_origins=("https://page.example",))[0].test_client()
    asked = {
        "Origin": "https://page.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,x-stainless-retry-count",
    }
    allowed = client.options(PATH, headers=asked).headers["Access-Control-Allow-Headers"].lower()
    assert {each.strip() for each in allowed.split(",")} == {*asked["Access-Control-Request-Headers"].split(",")}


class TestModels:
    def test_the_models_are_the_routes_and_then_the_embedder(self, shared_alice: ApiUser) -> None:
        found = shared_alice.get("/v1/models").json
        assert found["object"] == "list"
        assert [Model.model_validate(each).id for each in found["data"]] == ["default", "hashing-1"]
        assert shared_alice.get("/v1/models/hashing-1").json == found["data"][1]

    def test_a_key_that_is_restricted_to_models_sees_those_alone(self, alice: ApiUser, sessions: Sessions) -> None:
        restricted = alice.with_key(models=["default"])
        assert [each["id"] for each in restricted.get("/v1/models").json["data"]] == ["default", "hashing-1"]
        none = alice.with_key(models=["default"])
        with sessions.begin() as session:
            session.execute(update(ApiKey).values(models=["a route that is gone"]))
        assert [each["id"] for each in none.get("/v1/models").json["data"]] == ["hashing-1"]
        assert_error(none.get("/v1/models/default"), 404)

    def test_an_unknown_model_is_404(self, shared_alice: ApiUser) -> None:
        assert assert_error(shared_alice.get("/v1/models/org/none"), 404)["code"] == "model_not_found"


class TestEmbeddings:
    def test_a_text_and_a_list_have_the_vectors_of_the_embedder_in_their_order(self, shared_alice: ApiUser) -> None:
        texts = ["tides of the ocean", "the moon", "tides of the ocean"]
        found = embed(shared_alice, *texts).json
        CreateEmbeddingResponse.model_validate(found)
        vectors = np.array([each["embedding"] for each in found["data"]], dtype=np.float32)
        assert np.allclose(vectors, HashingEmbedder().embed(texts), atol=1e-6)
        assert [each["index"] for each in found["data"]] == [0, 1, 2]
        one = embed(shared_alice, input=texts[0]).json
        assert one["data"][0]["embedding"] == found["data"][0]["embedding"]
        assert found["usage"] == {"prompt_tokens": 12, "total_tokens": 12}

    def test_the_tokens_are_in_the_usage_under_the_embedders_name(self, alice: ApiUser) -> None:
        by_key = alice.with_key()
        for caller, texts in ((alice, ["tides of the ocean"]), (by_key, ["tides", "the moon"]), (by_key, ["tides"])):
            assert embed(caller, *texts).status_code == 200
        (row,) = alice.get("/usage/?by=model").json["rows"]
        used = {name: row[name] for name in ("model", "prompts", "prompt_tokens", "completion_tokens")}
        assert used == {"model": "hashing-1", "prompts": 0, "prompt_tokens": 5 + 4 + 2, "completion_tokens": 0}
        tokens = [each["prompt_tokens"] for each in alice.get("/usage/?by=key").json["rows"]]
        assert sorted(tokens) == [5, 6]

    def test_a_call_over_the_budget_of_its_key_is_refused_and_counts_nothing(self, alice: ApiUser) -> None:
        by_key = alice.with_key(monthly_tokens=10)
        assert embed(by_key, "tides of the ocean").status_code == 200
        assert assert_error(embed(by_key, "tides of the great ocean"), 429)["code"] == "insufficient_quota"
        assert alice.get("/usage/").json["total"]["prompt_tokens"] == 5
        assert embed(by_key, "tides of the ocean").status_code == 200

    def test_base64_holds_the_same_numbers(self, shared_alice: ApiUser) -> None:
        (floats,) = embed(shared_alice, "tide").json["data"]
        (encoded,) = embed(shared_alice, "tide", encoding_format="base64").json["data"]
        decoded = np.frombuffer(base64.b64decode(encoded["embedding"]), dtype="<f4")
        assert np.array_equal(decoded, np.array(floats["embedding"], dtype=np.float32))

    def test_more_texts_than_are_embedded_at_a_time_are_all_embedded(self, shared_alice: ApiUser) -> None:
        texts = [f"text {i}" for i in range(MAX_INPUTS)]
        found = embed(shared_alice, *texts, encoding_format="base64").json["data"]
        last = np.frombuffer(base64.b64decode(found[-1]["embedding"]), dtype="<f4")
        assert len(found) == MAX_INPUTS
        assert np.allclose(last, HashingEmbedder().embed(texts[-1:])[0], atol=1e-6)

    @pytest.mark.parametrize(
        ("fields", "param", "says"),
        [
            ({"input": [1, 2]}, "input", "tokens are not served here"),
            ({"input": [[1, 2]]}, "input", "tokens are not served here"),
            ({"input": []}, "input", "input must not be empty."),
            ({"input": ""}, "input", "input must not be blank."),
            ({"input": ["a", " "]}, "input", "input must not be blank."),
            ({"input": ["a"] * (MAX_INPUTS + 1)}, "input", "must have 2048 items or fewer"),
            ({"input": "a", "dimensions": 256}, "dimensions", "The vectors of hashing-1 have 384 dimensions."),
            ({"input": "a", "model": "text-embedding-3-small"}, "model", "The embedder here is hashing-1."),
            ({"input": "a", "encoding_format": "hex"}, "encoding_format", "must be 'float' or 'base64'"),
            ({"input": "a", "foo": 1}, "foo", "foo is not known."),
        ],
    )
    def test_what_the_embedder_cannot_do_is_refused(
        self, shared_alice: ApiUser, fields: dict, param: str, says: str
    ) -> None:
        error = assert_error(embed(shared_alice, **fields), 400)
        assert error["param"] == param
        assert says in error["message"]

    def test_its_own_dimensions_may_be_named(self, shared_alice: ApiUser) -> None:
        assert embed(shared_alice, "a", dimensions=384, user="u").status_code == 200

    def test_it_counts_as_a_search_of_the_user(self, app: Flask, services: Services, alice: ApiUser) -> None:
        for _ in range(services.settings.user_search_limit):
            services.user_limits.searches.acquire(alice.id)
        assert "USER_SEARCH_LIMIT" in assert_error(embed(alice, "x"), 429)["message"]
        services.user_limits.searches.release(alice.id)
        assert embed(alice, "x").status_code == 200

    def test_a_failing_embedder_is_503_and_counts_nothing(
        self, alice: ApiUser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(HashingEmbedder, "embed", lambda *_: 1 / 0)
        assert assert_error(embed(alice, "x"), 503)["code"] == "provider"
        assert alice.get("/usage/").json["total"]["prompt_tokens"] == 0
