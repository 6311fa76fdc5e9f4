"""Input that no description admits, over every route: no 5xx, and every error is problem+json.

Requests made from the description, in and out of its bounds, are in `tests/e2e/test_openapi_fuzz.py`.
"""

import json
from collections.abc import Iterator

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.client import ApiUser
from tests.support.generated import QUIET

SIXTY = settings(QUIET, max_examples=60)

POSTED = [
    "/auth/register/",
    "/login/",
    "/auth/refresh/",
    "/auth/logout/",
    "/prompts/",
    "/prompts/{prompt_id}/cancel/",
    "/prompts/{prompt_id}/retry/",
]
PATHS = [
    *POSTED,
    "/prompts/{prompt_id}/",
    "/prompts/{prompt_id}/stream/",
    "/prompts/similar/",
    "/livez/",
    "/readyz/",
    "/metrics/",
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


def end_all(user: ApiUser) -> None:
    """Cancels what is unfinished: whoever followed it would wait for ever."""
    while unfinished := user.get("/prompts/?status=queued&limit=100").json:
        for prompt in unfinished:
            user.post(f"/prompts/{prompt['id']}/cancel/")


@SIXTY
@given(method=st.sampled_from(["GET", "POST", "DELETE"]), data=st.data())
def test_arbitrary_bytes_in_path_query_and_body(lasting_app: Flask, lasting_alice: ApiUser, method: str, data) -> None:
    end_all(lasting_alice)
    path = data.draw(st.sampled_from(PATHS)).replace("{prompt_id}", data.draw(st.text("0129a%-.")))
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
@given(path=st.sampled_from(POSTED), data=st.data())
def test_arbitrary_values_in_the_fields(lasting_app: Flask, lasting_alice: ApiUser, path: str, data) -> None:
    body = data.draw(st.dictionaries(_FIELDS, _JSON | st.sampled_from(["a\0b", "\ud800", "password 1"])))
    response = lasting_alice.post(
        path.replace("{prompt_id}", "1"), data=json.dumps(body), content_type="application/json"
    )
    assert response.status_code < 500
    assert response.status_code < 400 or response.content_type == "application/problem+json"
