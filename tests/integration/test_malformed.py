"""Generated input over every route of the API's own description: no 5xx, and every error is problem+json."""

import json
from collections.abc import Iterator

import pytest
import schemathesis
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from tests.support.client import ApiUser
from tests.support.generated import QUIET

CHECKS = (not_a_server_error, status_code_conformance, response_schema_conformance)
SIXTY = settings(QUIET, max_examples=60)

ROUTES = [
    ("POST", "/auth/register/"),
    ("POST", "/login/"),
    ("POST", "/auth/refresh/"),
    ("POST", "/auth/logout/"),
    ("POST", "/prompts/"),
    ("GET", "/prompts/"),
    ("GET", "/prompts/{prompt_id}/"),
    ("DELETE", "/prompts/{prompt_id}/"),
    ("POST", "/prompts/{prompt_id}/cancel/"),
    ("POST", "/prompts/{prompt_id}/retry/"),
    ("GET", "/prompts/similar/"),
    ("GET", "/livez/"),
    ("GET", "/readyz/"),
]


@pytest.fixture(scope="module")
def lasting_app(servers) -> Iterator[Flask]:
    from api.app import create_app
    from api.services import make_services

    with servers.database() as name:
        made_settings = servers.settings(name)
        services = make_services(made_settings)
        services.relay.start()
        yield create_app(made_settings, services)
        services.relay.shut_down()
        services.sessions.kw["bind"].dispose()


@pytest.fixture(scope="module")
def lasting_alice(lasting_app: Flask) -> ApiUser:
    return ApiUser(lasting_app, "alice")


def test_the_list_of_routes_is_complete(lasting_app: Flask) -> None:
    paths = lasting_app.test_client().get("/openapi.json").json["paths"]
    assert {(method.upper(), path) for path, operations in paths.items() for method in operations} == set(ROUTES)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_generated_requests(lasting_app: Flask, lasting_alice: ApiUser, method: str, path: str) -> None:
    schema = schemathesis.openapi.from_wsgi("/openapi.json", lasting_app)
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    statuses: list[int] = []

    @SIXTY
    @given(case=st.one_of(*(schema[path][method].as_strategy(generation_mode=mode) for mode in modes)))
    def holds(case: schemathesis.Case) -> None:
        # Generated tokens would end most of it at 401, and a wait of a minute is right, but no help here.
        case.headers.pop("Prefer", None)
        case.headers.pop("Authorization", None)
        response = case.call(headers={"Authorization": f"Bearer {lasting_alice.tokens['access']}"})
        statuses.append(response.status_code)
        case.validate_response(response, checks=CHECKS)
        if response.status_code >= 400:
            assert response.headers["content-type"] == ["application/problem+json"]

    holds()
    # It must have got past the door, or it has tested nothing.
    assert statuses.count(401) < len(statuses) / 2 or path.startswith(("/login", "/auth"))


@SIXTY
@given(method=st.sampled_from(["GET", "POST", "DELETE"]), data=st.data())
def test_arbitrary_bytes_in_path_query_and_body(lasting_app: Flask, lasting_alice: ApiUser, method: str, data) -> None:
    path = data.draw(st.sampled_from([path for _, path in ROUTES])).replace(
        "{prompt_id}", data.draw(st.text("0129a%-."))
    )
    response = lasting_alice.call(
        method,
        path,
        query_string=data.draw(st.binary(max_size=50)).decode("latin-1"),
        data=data.draw(st.binary(max_size=200)),
        headers={
            "Content-Type": data.draw(st.sampled_from(["application/json", "text/plain", "application/json; x=\xff"]))
        },
    )
    assert response.status_code < 500
    assert response.status_code < 400 or response.content_type == "application/problem+json"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_FIELDS = st.sampled_from(["prompt_text", "websocket", "username", "password", "refresh", "other"])


@SIXTY
@given(path=st.sampled_from([path for method, path in ROUTES if method == "POST"]), data=st.data())
def test_arbitrary_values_in_the_fields(lasting_app: Flask, lasting_alice: ApiUser, path: str, data) -> None:
    body = data.draw(st.dictionaries(_FIELDS, _JSON | st.sampled_from(["a\0b", "\ud800", "password 1"])))
    response = lasting_alice.post(
        path.replace("{prompt_id}", "1"), data=json.dumps(body), content_type="application/json"
    )
    assert response.status_code < 500
    assert response.status_code < 400 or response.content_type == "application/problem+json"
