"""GET /account/export/: JSON Lines, streamed, every prompt with all of its fields."""

import json
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from sqlalchemy import text

from api.http.export import PromptExport
from shared.accounts import export
from shared.db.engine import Sessions
from tests.support.client import ApiUser, assert_problem
from tests.support.servers import Servers
from worker.pipeline import Pipeline


def lines(user: ApiUser) -> list[dict]:
    response = user.get("/account/export/")
    assert (response.status_code, response.mimetype) == (200, "application/x-ndjson")
    return [json.loads(line) for line in response.data.splitlines()]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_ROWS", 3)


@pytest.fixture
def prompts(alice: ApiUser, worker: Pipeline) -> list[int]:
    """Ten prompts of alice: five completed, one cancelled, four queued."""
    ids = [alice.submit(f"What is tide {i}?\n\u2028", websocket=True) for i in range(10)]
    worker.process(5)
    alice.post(f"/prompts/{ids[6]}/cancel/")
    return ids


@pytest.mark.usefixtures("small_pages")
def test_the_export_has_every_prompt_with_all_fields_of_its_resource_oldest_first(
    alice: ApiUser, prompts: list[int]
) -> None:
    exported = lines(alice)
    assert [line["id"] for line in exported] == prompts
    for line in exported:
        resource = alice.show(line["id"])
        assert {name: line[name] for name in resource} == resource


def test_a_line_has_all_other_fields_of_its_prompt(alice: ApiUser, prompts: list[int]) -> None:
    line = lines(alice)[0]
    assert line.keys() - alice.show(prompts[0]).keys() == {
        "request_id", "seq", "route", "generator", "cache", "api_key_id", "queued_at", "used_prompt_tokens",
        "used_completion_tokens", "request", "api", "api_request", "batch_id",
    }  # fmt: skip
    assert (line["seq"], line["route"], line["generator"]) == (1, "default", "simulated-1")


def test_the_export_of_a_user_without_prompts_is_empty(alice: ApiUser) -> None:
    response = alice.get("/account/export/")
    assert (response.status_code, response.data) == (200, b"")


def test_the_export_has_no_prompt_of_another_user(alice: ApiUser, bob: ApiUser, prompts: list[int]) -> None:
    mine = bob.submit("Mine")
    assert [line["id"] for line in lines(bob)] == [mine]


def test_a_page_has_the_texts_of_as_many_prompts_as_fit_and_at_least_one(
    alice: ApiUser, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [alice.submit("a" * length) for length in (40, 50, 200, 10, 10)]
    monkeypatch.setattr(export, "MAX_BYTES", 100)
    pages, after = [], 0
    with sessions() as session:
        while page := export.page(session, alice.id, after=after, last=ids[-1]):
            pages.append([len(each.prompt.prompt_text) for each in page])
            after = page[-1].prompt.id
    assert pages == [[40, 50], [200], [10, 10]]


@pytest.fixture
def begin(app: Flask, alice: ApiUser, prompts: list[int], small_pages: None) -> Callable[[], Iterator[bytes]]:
    """Begin an export. Returns its pages, of which only the first has been read from the database."""

    def request() -> Iterator[bytes]:
        return iter(alice.get("/account/export/", buffered=False).response)

    return request


def test_prompts_that_are_submitted_meanwhile_are_left_out(
    begin: Callable[[], Iterator[bytes]], alice: ApiUser, prompts: list[int]
) -> None:
    pages = begin()
    alice.submit("a late one")
    exported = [json.loads(line)["id"] for page in pages for line in page.splitlines()]
    assert exported == prompts


def test_an_export_breaks_off_when_its_login_ends(begin: Callable[[], Iterator[bytes]], alice: ApiUser, app) -> None:
    pages = begin()
    next(pages)
    app.test_client().post("/auth/logout/", json={"refresh": alice.tokens["refresh"]})
    with pytest.raises(ConnectionResetError):
        list(pages)


def test_an_export_breaks_off_when_postgres_is_unavailable(
    begin: Callable[[], Iterator[bytes]], sessions: Sessions, servers: Servers
) -> None:
    pages = begin()
    next(pages)
    with sessions.begin() as session:
        session.execute(text("ALTER TABLE prompts RENAME TO away"))
    try:
        with pytest.raises(ConnectionResetError):
            list(pages)
    finally:
        with sessions.begin() as session:
            session.execute(text("ALTER TABLE away RENAME TO prompts"))


def test_an_export_counts_as_a_waiting_stream_until_it_is_read_or_abandoned(
    make_app, alice: ApiUser, prompts: list[int], small_pages: None
) -> None:
    app, _ = make_app(user_wait_limit=1)
    there = alice.at(app)
    first = there.get("/account/export/", buffered=False)
    problem = assert_problem(there.get("/account/export/"), 429)
    assert "USER_WAIT_LIMIT" in problem["detail"]
    first.close()
    assert len(lines(there)) == len(prompts)
    assert len(lines(there)) == len(prompts)


def test_an_error_before_the_first_line_is_a_problem(
    alice: ApiUser, prompts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Iterator[bytes]:
        raise ValueError
        yield b""

    monkeypatch.setattr(PromptExport, "pages", fail)
    assert_problem(alice.get("/account/export/"), 500)
