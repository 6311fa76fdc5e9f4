"""The end of CONTRACT: what the API does while Redis or Postgres does not answer, and that it recovers by itself."""

import httpx
import pytest

from tests.support.client import PASSWORD
from tests.support.processes import RemoteUser
from tests.support.servers import Servers, wait_until
from tests.support.threads import at_once


def calls(user: RemoteUser) -> dict[str, httpx.Response]:
    """Make one request of each kind. `elapsed` of a response is how long it took."""
    credentials = {"username": user.username, "password": PASSWORD}
    return {
        "list": user.http.get("/prompts/"),
        "submit": user.http.post("/prompts/", json={"prompt_text": "Hi"}),
        "search": user.http.get("/prompts/similar/", params={"prompt": "Hi"}),
        "login": user.http.post("/login/", json=credentials),
    }


def test_while_postgres_does_not_answer_every_request_is_503_and_later_works_again(servers: Servers, url: str) -> None:
    alice = RemoteUser(url)
    with servers.postgres_process.stalled():
        for response in calls(alice).values():
            assert response.status_code == 503
            assert response.headers["Content-Type"] == "application/problem+json"
            assert int(response.headers["Retry-After"]) > 0
            assert response.elapsed.total_seconds() < 3
        assert alice.http.get("/readyz").status_code == 503
        assert alice.http.get("/livez").status_code == 200
    wait_until(lambda: alice.http.get("/prompts/").status_code == 200, what="recovering")
    assert alice.http.get("/prompts/").json() == []


def test_parallel_requests_do_not_wait_for_each_other_while_postgres_does_not_answer(
    servers: Servers, url: str
) -> None:
    alice = RemoteUser(url)

    def call() -> tuple[int, float]:
        response = alice.http.get("/prompts/")
        return response.status_code, response.elapsed.total_seconds()

    with servers.postgres_process.stalled():
        taken = at_once(40, call)
    assert {status for status, _ in taken} == {503}
    assert max(seconds for _, seconds in taken) < 3
    wait_until(lambda: alice.http.get("/prompts/").status_code == 200, what="recovering")


def test_while_redis_does_not_answer_every_request_works(servers: Servers, url: str) -> None:
    alice = RemoteUser(url)
    with servers.valkey_process.stalled():
        submitted = at_once(30, lambda: alice.http.post("/prompts/", json={"prompt_text": "Hi"}))
        assert [response.status_code for response in submitted] == [202] * 30
        answers = {name: response.status_code for name, response in calls(alice).items()}
        assert answers == {"list": 200, "submit": 202, "search": 200, "login": 200}
        ready = alice.http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        with alice.join() as room:
            room.receive()
            alice.http.post(f"/prompts/{alice.submit()}/cancel/")
            assert room.receive()["type"] == "prompt.cancelled"
    wait_until(lambda: alice.http.get("/readyz").json()["status"] == "ok", what="recovering")


@pytest.mark.parametrize("length", [8_500, 60_000])
def test_a_request_that_gunicorn_itself_refuses_gets_a_problem_too(url: str, length: int) -> None:
    response = httpx.get(f"{url}/prompts/similar/?prompt={'a' * length}")
    assert response.status_code == 414
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == 414


def test_a_query_of_eight_thousand_characters_is_accepted(url: str) -> None:
    alice = RemoteUser(url)
    assert alice.http.get(f"/prompts/similar/?prompt={'a' * 8_000}").json() == []
