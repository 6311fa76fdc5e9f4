"""The API below a path prefix, whether or not the proxy has removed it."""

from collections.abc import Callable

import pytest
from flask import Flask

from api.services import Services
from tests.support.client import ApiUser, assert_problem

PREFIX = "/promptwire"
#: A browser's handshake, which the test client cannot complete: it is refused with 426 where a socket would be opened.
HANDSHAKE = "/ws/prompts/alice/"


@pytest.fixture
def user(make_app: Callable[..., tuple[Flask, Services]]) -> ApiUser:
    return ApiUser(make_app(public_url=f"https://example.com:8443{PREFIX}")[0], "alice")


@pytest.mark.parametrize("given", ["", PREFIX], ids=["removed by the proxy", "passed on by the proxy"])
def test_every_address_in_a_response_has_the_prefix(user: ApiUser, given: str) -> None:
    submitted = user.post(f"{given}/prompts/", json={"prompt_text": "one"})
    assert submitted.headers["Location"] == f"{PREFIX}/prompts/{submitted.json['id']}/"
    user.submit("two")
    page = user.get(f"{given}/prompts/?limit=1")
    assert page.headers["Link"].startswith(f"<{PREFIX}/prompts/?limit=1&cursor=")
    user.post(f"{given}/prompts/{submitted.json['id']}/cancel/")
    assert user.post(f"{given}/prompts/{submitted.json['id']}/retry/").headers["Location"].startswith(PREFIX)
    assert user.get(f"{given}/openapi.json").json["servers"][0]["url"] == PREFIX
    assert user.get(f"{given}/", buffered=True).status_code == 200
    assert user.get(f"{given}/static/app.js", buffered=True).status_code == 200
    assert user.get(f"{given}/docs").status_code == 200
    assert user.get(f"{given}/livez/").status_code == 200
    assert user.get(f"{given}{HANDSHAKE}").status_code == 426


def test_the_page_has_a_slash_at_the_end_of_its_address(user: ApiUser) -> None:
    response = user.get(PREFIX)
    assert (response.status_code, response.headers["Location"]) == (308, f"{PREFIX}/")


@pytest.mark.parametrize(
    "path",
    [
        *(f"{PREFIX}{part}" for part in ("/metrics", "/metrics/", "//metrics", "/readyz", "//readyz/")),
        f"{PREFIX}{PREFIX}/metrics",
        f"{PREFIX}{PREFIX}/livez",
        f"{PREFIX}x/livez",
        f"/x{PREFIX}/livez",
    ],
)
def test_paths_that_are_not_below_the_prefix_are_not_found(user: ApiUser, path: str) -> None:
    assert_problem(user.get(path), 404)


def test_without_public_url_there_is_no_prefix(make_app: Callable[..., tuple[Flask, Services]]) -> None:
    forged = {"X-Forwarded-Prefix": PREFIX, "X-Script-Name": PREFIX}
    client = make_app(trusted_proxies=1)[0].test_client()
    assert client.get(f"{PREFIX}/livez", headers=forged).status_code == 404
