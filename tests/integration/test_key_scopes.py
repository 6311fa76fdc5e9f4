"""What an API key may do: each route needs a scope."""

import math
from collections.abc import Callable
from functools import cache
from uuid import uuid4

import pytest
from flask import Flask

from api.auth.principal import KeyGrant, Principal
from shared.db.models import Scope
from tests.support.client import ApiUser, assert_problem

READ, WRITE, KEYS, VIEW, ADMIN = Scope
#: Changing a webhook sends answers elsewhere, so it needs both.
READ_AND_WRITE = (READ, WRITE)

#: The scope that each route needs.
NEEDED = {
    ("POST", "/prompts/"): WRITE,
    ("GET", "/prompts/"): READ,
    ("GET", "/prompts/{prompt_id}/"): READ,
    ("GET", "/prompts/{prompt_id}/stream/"): READ,
    ("POST", "/prompts/{prompt_id}/cancel/"): WRITE,
    ("POST", "/prompts/{prompt_id}/retry/"): WRITE,
    ("DELETE", "/prompts/{prompt_id}/"): WRITE,
    ("GET", "/prompts/similar/"): READ,
    ("GET", "/account/"): READ,
    ("GET", "/account/export/"): READ,
    ("GET", "/usage/"): READ,
    ("GET", "/webhooks/"): READ,
    ("POST", "/webhooks/"): READ_AND_WRITE,
    ("GET", "/webhooks/{webhook_id}/"): READ,
    ("PATCH", "/webhooks/{webhook_id}/"): READ_AND_WRITE,
    ("DELETE", "/webhooks/{webhook_id}/"): READ_AND_WRITE,
    ("POST", "/webhooks/{webhook_id}/rotate/"): READ_AND_WRITE,
    ("POST", "/webhooks/{webhook_id}/test/"): READ_AND_WRITE,
    ("POST", "/webhooks/{webhook_id}/recover/"): READ_AND_WRITE,
    ("GET", "/webhooks/{webhook_id}/deliveries/"): READ,
    ("POST", "/webhooks/{webhook_id}/deliveries/{delivery_id}/replay/"): READ_AND_WRITE,
    ("POST", "/v1/chat/completions"): WRITE,
    ("GET", "/v1/chat/completions/{completion_id}"): READ,
    ("DELETE", "/v1/chat/completions/{completion_id}"): WRITE,
    ("POST", "/v1/chat/completions/{completion_id}"): WRITE,
    ("GET", "/v1/chat/completions"): READ,
    ("GET", "/v1/chat/completions/{completion_id}/messages"): READ,
    ("POST", "/v1/responses"): WRITE,
    ("GET", "/v1/responses/{response_id}"): READ,
    ("GET", "/v1/responses/{response_id}/input_items"): READ,
    ("POST", "/v1/responses/{response_id}/cancel"): WRITE,
    ("DELETE", "/v1/responses/{response_id}"): WRITE,
    ("POST", "/v1/embeddings"): WRITE,
    ("GET", "/v1/models"): READ,
    ("POST", "/v1/files"): WRITE,
    ("GET", "/v1/files"): READ,
    ("GET", "/v1/files/{file_id}"): READ,
    ("GET", "/v1/files/{file_id}/content"): READ,
    ("DELETE", "/v1/files/{file_id}"): WRITE,
    ("POST", "/v1/batches"): WRITE,
    ("GET", "/v1/batches"): READ,
    ("GET", "/v1/batches/{batch_id}"): READ,
    ("POST", "/v1/batches/{batch_id}/cancel"): WRITE,
    ("GET", "/v1/models/{model_id}"): READ,
    ("POST", "/auth/keys/"): KEYS,
    ("GET", "/auth/keys/"): KEYS,
    ("DELETE", "/auth/keys/{key_id}/"): KEYS,
}
#: What only a login may do.
LOGIN_ONLY = (
    ("POST", "/account/password/"),
    ("GET", "/account/logins/"),
    ("DELETE", "/account/logins/{login_id}/"),
    ("DELETE", "/account/"),
    ("GET", "/account/identities/"),
    ("POST", "/account/identities/"),
    ("DELETE", "/account/identities/{identity_id}/"),
)
BODIES = {
    "/prompts/": {"prompt_text": "Hi"},
    # An unknown model, because a chat completion waits for a worker.
    "/v1/chat/completions": {"model": "none", "messages": [{"role": "user", "content": "Hi"}]},
    "/v1/responses": {"input": "Hi", "background": True},
    "/v1/embeddings": {"model": "hashing-1", "input": "Hi"},
    "/auth/keys/": {"name": "n"},
    "/webhooks/": {"url": "https://hooks.example/"},
    "/webhooks/{webhook_id}/recover/": {"since": 0},
    "/account/password/": {"current_password": "wrong", "password": "correct horse"},
    "/account/": {"password": "wrong"},
    "/account/identities/": {"code": "c", "code_verifier": "v" * 43, "password": "wrong"},
}


def call(user: ApiUser, method: str, path: str):
    body = {"json": BODIES.get(path, {})} if method in ("POST", "PATCH") or path == "/account/" else {}
    query = {"query_string": {"prompt": "tide"}} if "similar" in path else {}
    ids = {"prompt_id": 999, "key_id": 999, "webhook_id": 999, "delivery_id": 999, "login_id": uuid4()}
    ids |= {"completion_id": "chatcmpl-999", "response_id": "resp_999", "model_id": "none"}
    ids |= {"file_id": "file-999", "batch_id": "batch_999", "identity_id": 999}
    return user.call(method, path.format(**ids), **body, **query)


def scopes_of(method: str, path: str) -> tuple[Scope, ...]:
    needed = NEEDED[method, path]
    return needed if isinstance(needed, tuple) else (needed,)


def test_the_scope_of_every_route_with_a_token_is_tested(shared_app: Flask) -> None:
    paths = shared_app.test_client().get("/openapi.json").json["paths"]
    with_a_token = {
        (method.upper(), path)
        for path, operations in paths.items()
        for method, operation in operations.items()
        if operation["security"]
    }
    assert {route for route in with_a_token if not route[1].startswith("/admin/")} == NEEDED.keys() | set(LOGIN_ONLY)


@pytest.fixture(scope="module")
def with_scopes(shared_alice: ApiUser) -> Callable[..., ApiUser]:
    """Alice with a key of these scopes: one for each set of scopes, because a user may have 100."""
    return cache(lambda *scopes: shared_alice.with_key(scopes=scopes))


@pytest.mark.parametrize(("method", "path"), NEEDED)
def test_a_route_is_403_without_its_scope_and_open_with_it_alone(
    shared_alice: ApiUser, with_scopes: Callable[..., ApiUser], method: str, path: str
) -> None:
    scopes = scopes_of(method, path)
    for needed in scopes:
        others = [scope for scope in (READ, WRITE, KEYS) if scope != needed]
        response = call(with_scopes(*others), method, path)
        if path.startswith("/v1/"):
            assert response.status_code == 403
            kind, detail = response.json["error"]["code"], response.json["error"]["message"]
        else:
            problem = assert_problem(response, 403)
            kind, detail = problem["type"], problem["detail"]
        assert kind in ("urn:promptwire:problem:insufficient-scope", "insufficient_scope")
        assert needed in detail
        assert response.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{needed}"'
    if path != "/auth/keys/" or method != "POST":  # which makes keys only with scopes of its own
        assert call(with_scopes(*scopes), method, path).status_code not in (401, 403)
    assert call(shared_alice, method, path).status_code not in (401, 403)


@pytest.mark.parametrize(("method", "path"), LOGIN_ONLY)
def test_routes_for_logins_are_403_with_a_key_of_all_scopes(
    with_scopes: Callable[..., ApiUser], method: str, path: str
) -> None:
    response = call(with_scopes(READ, WRITE, KEYS), method, path)
    assert assert_problem(response, 403)["type"] == "urn:promptwire:problem:login-required"


@pytest.mark.parametrize(("method", "path"), NEEDED)
def test_every_403_for_a_scope_is_described(shared_app: Flask, method: str, path: str) -> None:
    operation = shared_app.test_client().get("/openapi.json").json["paths"][path][method.lower()]
    described = operation["responses"]["403"]
    assert "WWW-Authenticate" in described["headers"]
    (media,) = described["content"].values()
    assert "insufficient-scope" in media["examples"]


def test_a_preflight_needs_no_scope(shared_app: Flask) -> None:
    assert shared_app.test_client().options("/auth/keys/").status_code == 200


@pytest.mark.parametrize("is_admin", [True, False])
def test_the_scope_admin_counts_only_while_the_keys_user_is_an_admin(is_admin: bool) -> None:
    key = KeyGrant(1, frozenset({Scope.ADMIN}))
    assert Principal(1, "alice", None, math.inf, is_admin, key).has_scope(Scope.ADMIN) == is_admin


@pytest.mark.parametrize("is_admin", [True, False])
def test_a_login_has_every_scope_and_admin_if_the_user_is_one(is_admin: bool) -> None:
    login = Principal(1, "alice", uuid4(), math.inf, is_admin)
    assert [login.has_scope(scope) for scope in (READ, WRITE, KEYS, Scope.ADMIN)] == [True, True, True, is_admin]
