"""Arbitrary input, over every route, never causes a 5xx, and every error is problem+json.

`tests/e2e/test_openapi_fuzz.py` sends requests derived from the OpenAPI document, valid and invalid.
"""

import json
import re

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.client import ApiUser
from tests.support.generated import QUIET

SIXTY_EXAMPLES = settings(QUIET, max_examples=60)

POSTED = [
    "/auth/register/",
    "/login/",
    "/auth/refresh/",
    "/auth/logout/",
    "/prompts/",
    "/prompts/{prompt_id}/cancel/",
    "/prompts/{prompt_id}/retry/",
    "/webhooks/",
    "/webhooks/{webhook_id}/recover/",
    "/webhooks/{webhook_id}/deliveries/{delivery_id}/replay/",
]
PATHS = [
    *POSTED,
    "/prompts/{prompt_id}/",
    "/prompts/{prompt_id}/stream/",
    "/prompts/similar/",
    "/webhooks/{webhook_id}/",
    "/webhooks/{webhook_id}/deliveries/",
    "/livez/",
    "/readyz/",
    "/metrics/",
]


def cancel_all(user: ApiUser) -> None:
    """Cancel unfinished prompts, because a text stream of one of them would never end."""
    while unfinished := user.get("/prompts/?status=queued&limit=100").json:
        for prompt in unfinished:
            user.post(f"/prompts/{prompt['id']}/cancel/")


@SIXTY_EXAMPLES
@given(method=st.sampled_from(["GET", "POST", "PATCH", "DELETE"]), data=st.data())
def test_arbitrary_bytes_in_path_query_and_body_cause_no_server_error(
    shared_app: Flask, shared_alice: ApiUser, method: str, data
) -> None:
    cancel_all(shared_alice)
    path = re.sub(r"\{\w+\}", lambda _: data.draw(st.text("0129a%-.")), data.draw(st.sampled_from(PATHS)))
    response = shared_alice.call(
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
_FIELDS = st.sampled_from(
    ["prompt_text", "websocket", "username", "password", "refresh", "url", "events", "since", "other"]
)


@SIXTY_EXAMPLES
@given(path=st.sampled_from(POSTED), data=st.data())
def test_arbitrary_values_in_fields_cause_no_server_error(
    shared_app: Flask, shared_alice: ApiUser, path: str, data
) -> None:
    body = data.draw(st.dictionaries(_FIELDS, _JSON | st.sampled_from(["a\0b", "\ud800", "password 1"])))
    response = shared_alice.post(re.sub(r"\{\w+\}", "1", path), data=json.dumps(body), content_type="application/json")
    assert response.status_code < 500
    assert response.status_code < 400 or response.content_type == "application/problem+json"


@pytest.mark.parametrize("path", ["/no/such/path/", "/account/logins/nonsense/", "/prompts/x/"])
def test_a_path_that_does_not_exist_is_404_in_one_plain_sentence(shared_alice: ApiUser, path: str) -> None:
    response = shared_alice.get(path)
    assert (response.status_code, response.json["detail"]) == (404, "There is nothing at this path.")
