"""The cost of a request is in proportion to its size, and costly input is refused early."""

import json
from collections.abc import Callable

import pytest
from flask import Flask
from pydantic import BaseModel, ValidationError
from werkzeug.test import TestResponse

from api.http import problems
from api.http.requests import MAX_CONTAINERS, SMALL_BODY_BYTES
from shared.request_body import MAX_UNKNOWN_NAMES
from shared.validation_messages import MAX_FIELD_LENGTH
from tests.support.client import ApiUser, assert_problem
from tests.support.costs import assert_linear

AUTH_PATHS = ["/login/", "/auth/register/", "/auth/refresh/", "/auth/logout/"]
JSON = "application/json"

Ask = Callable[[ApiUser, int], TestResponse]


def submit(body: str) -> Callable[[ApiUser], TestResponse]:
    return lambda user: user.post("/prompts/", data=body, content_type=JSON)


def with_header(name: str, value: str) -> Callable[[ApiUser], TestResponse]:
    return lambda user: user.get("/prompts/1/", headers={name: value})


def unknown(count: int) -> dict[str, object]:
    return {f"key{i}": i for i in range(count)}


#: Requests of about a size. gunicorn lets headers and URLs have 8 KB; here they are larger, so that the times differ.
REQUESTS: dict[str, Callable[[int], Callable[[ApiUser], TestResponse]]] = {
    "unknown fields": lambda n: submit(json.dumps(unknown(n // 16))),
    "one long field": lambda n: submit(json.dumps({"k" * n: 1})),
    "nested arrays": lambda n: submit('{"prompt_text": ' + "[" * n),
    "many arrays": lambda n: submit('{"prompt_text": [' + "[]," * (n // 3)),
    "strings without an end": lambda n: submit('{"prompt_text": "' + "[" * n + '\\"' * n),
    "many strings": lambda n: submit('{"prompt_text": [' + '"[",' * (n // 4)),
    "a long number": lambda n: submit('{"history": ' + "9" * n + "}"),
    "a long fraction": lambda n: submit('{"history": 0.' + "9" * n + "}"),
    "many long numbers": lambda n: submit('{"prompt_text": [' + ",".join(["9" * 4_300] * (n // 4_300)) + "]}"),
    "spaces": lambda n: submit(json.dumps({"prompt_text": " " * n})),
    "a long text": lambda n: submit(json.dumps({"prompt_text": "a" * n, "websocket": 1})),
    "Prefer: spaces": lambda n: with_header("Prefer", "," + " " * n + "x"),
    "Prefer: commas": lambda n: with_header("Prefer", ", " * (n // 2)),
    "Prefer: waits": lambda n: with_header("Prefer", ",wait =" * (n // 7)),
    "If-None-Match: tags": lambda n: with_header("If-None-Match", '"a",' * (n // 4)),
    "If-None-Match: quotes": lambda n: with_header("If-None-Match", '"' * n),
    "If-None-Match: spaces": lambda n: with_header("If-None-Match", '"a"' + " " * n + "b"),
    "Cookie": lambda n: with_header("Cookie", "a=b; " * (n // 5)),
    "Accept": lambda n: with_header("Accept", "a/b;q=0.5," * (n // 10)),
    "Authorization": lambda n: with_header("Authorization", "Bearer " + "a." * (n // 2)),
    "a query of many names": lambda n: lambda user: user.get("/prompts/", query_string=unknown(n // 10)),
    "a query of many values": lambda n: lambda user: user.get("/prompts/?" + "limit=1&" * (n // 8)),
    "a long number in a query": lambda n: lambda user: user.get("/prompts/?limit=" + "9" * n),
    "a long number in a path": lambda n: lambda user: user.get("/prompts/" + "9" * n + "/"),
    "a long path": lambda n: lambda user: user.get("/" + "a/" * (n // 2)),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_costs_time_in_proportion_to_its_size(shared_alice: ApiUser, kind: str) -> None:
    def ask(size: int) -> None:
        response = REQUESTS[kind](size)(shared_alice)
        assert response.status_code < 500
        assert len(response.data) < 2_000

    assert_linear(ask, 50_000)


def test_many_unknown_fields_are_one_error_that_names_the_known_ones(alice: ApiUser) -> None:
    problem = assert_problem(alice.post("/prompts/", json=unknown(60_000)), 400)
    assert len(problem["errors"]) == 1
    assert "prompt_text" in problem["errors"][0]["message"]


def test_many_unknown_parameters_are_one_error(alice: ApiUser) -> None:
    problem = assert_problem(alice.get("/prompts/", query_string=unknown(1_000)), 400)
    assert len(problem["errors"]) == 1
    assert "limit, cursor" in problem["errors"][0]["message"]


def test_a_few_unknown_fields_get_an_error_each(alice: ApiUser) -> None:
    body = {"prompt_text": "Hi"} | unknown(MAX_UNKNOWN_NAMES)
    problem = assert_problem(alice.post("/prompts/", json=body), 400)
    assert [error["field"] for error in problem["errors"]] == list(unknown(MAX_UNKNOWN_NAMES))


def test_a_problem_lists_at_most_20_errors(app: Flask) -> None:
    class Numbers(BaseModel):
        numbers: list[int]

    with pytest.raises(ValidationError) as refused:
        Numbers(numbers=["x"] * 1_000)
    with app.app_context():
        assert len(problems.invalid(refused.value).json["errors"]) == 20


def test_the_name_of_an_unknown_field_is_shortened(alice: ApiUser) -> None:
    problem = assert_problem(alice.post("/prompts/", json={"prompt_text": "Hi", "k" * 100_000: 1}), 400)
    assert len(problem["errors"][0]["field"]) == MAX_FIELD_LENGTH


def test_a_body_with_too_many_arrays_and_objects_gets_400(alice: ApiUser) -> None:
    problem = assert_problem(submit('{"prompt_text": [' + "{}," * MAX_CONTAINERS + "1]}")(alice), 400)
    assert str(MAX_CONTAINERS) in problem["detail"]


@pytest.mark.parametrize("text", ["[{" * 20_000, '\\"[' * 20_000, '"["' * 20_000])
def test_brackets_in_a_text_do_not_count(alice: ApiUser, text: str) -> None:
    assert alice.show(alice.submit(text))["prompt_text"] == text


@pytest.mark.parametrize("path", AUTH_PATHS)
def test_a_body_over_16_kib_without_a_login_gets_413(app: Flask, path: str) -> None:
    body = b'{"username": "a", "password": "b"}'
    client = app.test_client()
    assert_problem(client.post(path, data=body.ljust(SMALL_BODY_BYTES + 1), content_type=JSON), 413)
    assert client.post(path, data=body.ljust(SMALL_BODY_BYTES), content_type=JSON).status_code in (400, 401)


def test_the_longest_password_fits_however_it_is_escaped(app: Flask) -> None:
    password = "\N{SLIGHTLY SMILING FACE}" * 1024
    body = json.dumps({"username": "a" * 150, "password": password}, ensure_ascii=True)
    assert len(body) > 12 * 1024
    for path, status in (("/auth/register/", 201), ("/login/", 200)):
        assert app.test_client().post(path, data=body, content_type=JSON).status_code == status
