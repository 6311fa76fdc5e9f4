"""Pages end at MAX_PAGE_BYTES of JSON, and the texts of later pages are neither read nor lost."""

import json
import random
import re
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event, text
from werkzeug.test import TestResponse

from shared.accounts import export
from shared.db.engine import Sessions
from shared.prompts import feed, queries
from shared.settings import Settings
from tests.support import lifecycle
from tests.support.client import ApiUser, assert_problem
from worker.pipeline import Pipeline

MAX_PAGE_BYTES = 50_000
#: JSON needs six bytes for each of these.
CONTROL = "\x01"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_page_bytes": MAX_PAGE_BYTES})


def pages(user: ApiUser, path: str) -> Iterator[TestResponse]:
    """The page at this path, and those after it, which are few."""
    for _ in range(20):
        response = user.get(path)
        assert response.status_code == 200, response.text
        yield response
        found = re.fullmatch('<(.+)>; rel="next"', response.headers.get("Link", ""))
        if found is None:
            return
        path = found[1]
    raise AssertionError("the pages do not end")


def ids(found: list[TestResponse]) -> list[int]:
    return [prompt["id"] for page in found for prompt in page.json]


@pytest.mark.parametrize("text", ["a" * 9_000, "ü" * 4_500, CONTROL * 1_500, '"' * 4_500])
@pytest.mark.parametrize("limit", [3, 100])
def test_a_list_is_split_where_its_json_would_be_larger(alice: ApiUser, text: str, limit: int) -> None:
    stored = [alice.submit(f"{i}{text}") for i in range(11)]
    found = list(pages(alice, f"/prompts/?limit={limit}"))
    assert ids(found) == stored[::-1]
    assert all(0 < len(page.data) <= MAX_PAGE_BYTES for page in found)
    assert len(found) == (4 if limit == 3 else 3)


def test_a_prompt_that_is_larger_than_a_page_has_its_own_page(alice: ApiUser) -> None:
    stored = [alice.submit(text) for text in ("small", "a" * 90_000, CONTROL * 9_000, "small")]
    found = list(pages(alice, "/prompts/"))
    assert ids(found) == stored[::-1]
    assert len(found) == 4


def test_each_page_of_a_list_has_the_same_status_filter(alice: ApiUser, worker: Pipeline) -> None:
    stored = [alice.submit(f"{i}" + "a" * 20_000) for i in range(8)]
    worker.process(4)
    found = list(pages(alice, "/prompts/?status=queued"))
    assert ids(found) == stored[:3:-1]
    assert len(found) == 2


def test_a_page_that_is_exactly_full_has_no_link_to_an_empty_one(alice: ApiUser) -> None:
    stored = [alice.submit() for _ in range(3)]
    assert [ids([page]) for page in pages(alice, "/prompts/?limit=3")] == [stored[::-1]]


@pytest.mark.parametrize("text", ["a" * 9_000, CONTROL * 1_500])
def test_search_results_are_split_where_their_json_would_be_larger(alice: ApiUser, worker: Pipeline, text: str) -> None:
    stored = [alice.submit(f"tides {'ocean ' * i} {text}") for i in range(11)]
    worker.process(len(stored))
    whole = [match.prompt_id for match in worker.store.search(alice.id, lambda e: e.embed(["tides"])[0], 10).matches]
    found = list(pages(alice, "/prompts/similar/?prompt=tides&limit=10&max_score=3.9"))
    assert ids(found) == whole
    assert all(0 < len(page.data) <= MAX_PAGE_BYTES for page in found)
    assert len(found) > 1


def test_the_next_search_results_skip_a_prompt_that_was_deleted_meanwhile(alice: ApiUser, worker: Pipeline) -> None:
    stored = [alice.submit(f"tides {'ocean ' * i} {'a' * 20_000}") for i in range(5)]
    worker.process(len(stored))
    first, *others = pages(alice, "/prompts/similar/?prompt=tides")
    assert sorted(ids([first, *others])) == stored
    last = ids(others)[-1]
    alice.delete(f"/prompts/{last}/")
    again = ids(list(pages(alice, "/prompts/similar/?prompt=tides")))
    assert sorted(again) == [prompt_id for prompt_id in stored if prompt_id != last]


@pytest.mark.parametrize("cursor", ["x", "YmVmb3JlOjE", "cmFuazow", "cmFuazo2"])
def test_a_cursor_of_another_list_or_beyond_the_limit_gets_400(alice: ApiUser, cursor: str) -> None:
    assert_problem(alice.get(f"/prompts/similar/?prompt=tides&cursor={cursor}"), 400)


@pytest.mark.parametrize("column", ["metadata", "tool_calls"])
def test_metadata_and_tool_calls_count_for_lists_feeds_and_exports(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, column: str
) -> None:
    stored = [alice.submit(f"tide {i}", websocket=True) for i in range(6)]
    worker.process(6)
    value = json.dumps({"k": "v" * 20_000} if column == "metadata" else [{"id": "c" * 20_000}])
    with sessions.begin() as session:
        session.execute(text(f"UPDATE prompts SET {column} = CAST(:value AS jsonb)"), {"value": value})  # noqa: S608
        assert len(queries.page(session, alice.id, limit=100, max_bytes=MAX_PAGE_BYTES).prompts) == 2
        assert len(feed.read(session, alice.id, 0, max_bytes=MAX_PAGE_BYTES).events) == 2
        assert len(export.page(session, alice.id, after=0, last=stored[-1])) == 6  # up to 256 KiB
        session.execute(text("UPDATE prompts SET request = CAST(:value AS json)"), {"value": json.dumps("x" * 50_000)})
        assert len(export.page(session, alice.id, after=0, last=stored[-1])) == 3


class TestReading:
    """PostgreSQL reads only the texts of the page."""

    TEXT_BYTES = 100_000

    @pytest.fixture
    def prompt_ids(self, sessions: Sessions, user_id: int) -> list[int]:
        """Prompts with large texts that cannot be compressed."""
        made = random.Random(1)
        with sessions.begin() as session:
            return [
                lifecycle.submit(session, user_id, made.randbytes(self.TEXT_BYTES // 2).hex()).id for _ in range(50)
            ]

    @pytest.fixture
    def user_id(self, alice: ApiUser) -> int:
        return alice.id

    @staticmethod
    def blocks(engine: Engine, read) -> int:
        """How many blocks the statement of `read` touches, its result included."""
        with engine.connect() as connection:
            plan = None

            def explain(_, cursor, statement, parameters, *__):
                nonlocal plan
                cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, SERIALIZE, FORMAT JSON) {statement}", parameters)
                plan = cursor.fetchone()[0][0]
                return statement, parameters

            event.listen(connection, "before_cursor_execute", explain, retval=True)
            read(connection)
        buffers = [plan["Plan"], plan["Serialization"]]
        return sum(part[f"Shared {kind} Blocks"] for part in buffers for kind in ("Hit", "Read"))

    def test_a_list_does_not_read_the_texts_beyond_the_page(
        self, engine: Engine, user_id: int, prompt_ids: list[int]
    ) -> None:
        def read(max_bytes: int) -> int:
            return self.blocks(engine, lambda c: queries.page(c, user_id, limit=100, max_bytes=max_bytes))

        assert 4 * read(self.TEXT_BYTES) < read(100 * self.TEXT_BYTES)

    def test_the_feed_does_not_read_the_texts_beyond_the_page(
        self, sessions: Sessions, engine: Engine, user_id: int, prompt_ids: list[int]
    ) -> None:
        with sessions.begin() as session:
            for prompt_id in prompt_ids:
                lifecycle.complete(session, lifecycle.claim(session, prompt_id), "short")

        def read(max_bytes: int) -> int:
            return self.blocks(engine, lambda c: feed.read(c, user_id, 0, max_bytes=max_bytes))

        assert 2 * read(self.TEXT_BYTES) < read(100 * self.TEXT_BYTES)
