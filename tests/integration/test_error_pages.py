"""Errors for people: a page for browsers, and the problem as it was for all others."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException, InternalServerError, NotFound, ServiceUnavailable
from werkzeug.test import TestResponse

from api.routes.page import CONTENT_SECURITY_POLICY
from tests.support.client import assert_problem

#: What Chromium and Firefox send when a person opens an address.
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.fixture(scope="module")
def client(shared_app: Flask) -> FlaskClient:
    return shared_app.test_client()


def get(client: FlaskClient, path: str, accept: str | None = BROWSER, **options: object) -> TestResponse:
    headers = {"X-Request-ID": "r-1"} | ({} if accept is None else {"Accept": accept})
    return client.open(path, headers=headers, **options)


@pytest.mark.parametrize("path", ["/nothing", "/prompts/x/y/", "/static/none.js", "/docs/none", "/prompts"])
def test_a_browser_gets_a_page_with_a_way_back(client: FlaskClient, path: str) -> None:
    method = "PUT" if path == "/prompts" else "GET"
    response = get(client, path, method=method)
    problem = get(client, path, None, method=method)
    assert (response.status_code, response.mimetype) == (problem.status_code, "text/html")
    assert f'<p class="lead">{problem.json["detail"]}</p>' in response.text
    assert '<a href="/">Back to Promptwire</a>' in response.text
    assert "request r-1" in response.text
    assert response.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert response.headers.get("Allow") == problem.headers.get("Allow")
    assert int(response.headers["Content-Length"]) == len(response.data)


@pytest.mark.parametrize(
    "accept",
    [None, "*/*", "", "application/json", "application/problem+json", "application/json, text/html;q=0.5", "image/*"],
)
def test_other_clients_get_the_problem(client: FlaskClient, accept: str | None) -> None:
    response = get(client, "/nothing", accept)
    assert_problem(response, 404)
    assert response.data == (
        b'{"type":"about:blank","title":"Not Found","status":404,"detail":"There is nothing at this path."}'
    )
    assert "Content-Security-Policy" not in response.headers


def test_openais_api_keeps_the_shape_of_its_errors(client: FlaskClient) -> None:
    assert get(client, "/v1/nothing").json["error"]["message"] == "There is nothing at this path."


@pytest.mark.parametrize("status", [400, 401, 403])
def test_other_errors_stay_problems(client: FlaskClient, status: int) -> None:
    response = {400: "/prompts/?limit=x", 401: "/prompts/", 403: "/prompts/"}[status]
    assert get(client, response).mimetype == "application/problem+json"


def render(app: Flask, error: HTTPException) -> str:
    """The page that a browser gets for this error."""
    with app.test_request_context("/", headers={"Accept": BROWSER}):
        app.preprocess_request()
        response = app.process_response(app.handle_user_exception(error))
        assert (response.status_code, response.mimetype) == (error.code, "text/html")
        return str(response.get_data(as_text=True))


@pytest.mark.parametrize(
    ("error", "heading"),
    [(InternalServerError(), "Something went wrong"), (ServiceUnavailable(), "Promptwire is not available")],
)
def test_errors_of_the_server_have_pages(shared_app: Flask, error: HTTPException, heading: str) -> None:
    assert f"<h1>{heading}</h1>" in render(shared_app, error)


def test_what_a_page_says_is_not_parsed_as_html(shared_app: Flask) -> None:
    assert '<p class="lead">&lt;script&gt;</p>' in render(shared_app, NotFound("<script>"))


def test_addresses_in_the_page_are_below_the_prefix(make_app) -> None:
    app, _ = make_app(public_url="https://example.com/promptwire")
    response = app.test_client().get("/promptwire/a/b", headers={"Accept": BROWSER, "Host": "example.com"})
    assert response.status_code == 404
    assert set(re.findall(r'(?:href|src)="([^"]*)"', response.text)) == {
        "/promptwire/", "/promptwire/static/icon.svg", "/promptwire/static/style.css", "/promptwire/static/theme.js",
    }  # fmt: skip
