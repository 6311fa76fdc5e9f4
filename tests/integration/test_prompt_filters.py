"""`GET /prompts/` filters by `metadata[key]=value`, `model`, `status`, `since` and `until`."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import Connection, event, text

from shared.db.engine import Sessions, make_engine
from shared.prompts import queries
from shared.prompts.filters import PromptFilter
from tests.support.client import ApiUser, assert_problem
from tests.support.servers import Servers
from worker.pipeline import Pipeline


def submit(user: ApiUser, **metadata: str) -> int:
    response = user.post("/prompts/", json={"prompt_text": "Hi", "metadata": metadata})
    assert response.status_code == 202, response.text
    return response.json["id"]


def listed(user: ApiUser, **query: Any) -> list[int]:
    """The ids of all pages of this list, two prompts each."""
    path, ids = "/prompts/", []
    query = {"limit": 2, **query}
    for _ in range(20):
        response = user.get(path, query_string=query)
        assert response.status_code == 200, response.text
        ids += [prompt["id"] for prompt in response.json]
        found = re.fullmatch('<(.+)>; rel="next"', response.headers.get("Link", ""))
        if found is None:
            return ids
        path, query = found[1], None
    raise AssertionError("the pages do not end")


@pytest.fixture
def prompts(alice: ApiUser, bob: ApiUser) -> list[int]:
    submit(bob, customer="42", topic="tides")
    return [submit(alice, customer=str(42 + i % 2), topic="tides") for i in range(6)] + [submit(alice)]


class TestMetadata:
    def test_a_pair_selects_the_prompts_that_have_it(self, alice: ApiUser, prompts: list[int]) -> None:
        assert listed(alice, **{"metadata[customer]": "42"}) == prompts[4::-2]

    def test_several_pairs_select_the_prompts_that_have_all_of_them(self, alice: ApiUser, prompts: list[int]) -> None:
        both = {"metadata[customer]": "43", "metadata[topic]": "tides"}
        assert listed(alice, **both) == prompts[5:0:-2]
        assert listed(alice, **both | {"metadata[topic]": "other"}) == []

    @pytest.mark.parametrize("key", ["a[b]", "a]", "ü", "a&b=c", " ", "\U0001f30a"])
    def test_a_pair_may_have_any_characters(self, alice: ApiUser, key: str) -> None:
        prompt_id = submit(alice, **{key: f"{key}%"})
        submit(alice, **{key: "other"})
        assert listed(alice, **{f"metadata[{key}]": f"{key}%"}) == [prompt_id]

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("metadata=42", "metadata"),
            ("metadata[customer=42", "metadata[customer"),
            ("metadata[]=42", "metadata..[key]"),
            ("metadata[customer]=a%00b", "metadata.customer"),
            (f"metadata[customer]={'x' * 513}", "metadata.customer"),
            ("&".join(f"metadata[k{i}]=v" for i in range(17)), "metadata"),
            ("meta[customer]=42", "meta[customer]"),
        ],
    )
    def test_a_malformed_pair_is_400(self, shared_alice: ApiUser, query: str, field: str) -> None:
        errors = assert_problem(shared_alice.get(f"/prompts/?{query}"), 400)["errors"]
        assert [error["field"] for error in errors] == [field]

    def test_the_parameter_is_described_as_a_deep_object(self, shared_alice: ApiUser) -> None:
        document = shared_alice.get("/openapi.json").json
        parameters = {each.get("name"): each for each in document["paths"]["/prompts/"]["get"]["parameters"]}
        assert (parameters["metadata"]["style"], parameters["metadata"]["explode"]) == ("deepObject", True)
        assert "style" not in parameters["model"]


class TestOthers:
    def test_a_model_selects_the_prompts_of_its_route(
        self, alice: ApiUser, prompts: list[int], sessions: Sessions
    ) -> None:
        with sessions.begin() as session:
            session.execute(text("UPDATE prompts SET route = 'small' WHERE id = :id"), {"id": prompts[2]})
        assert listed(alice, model="small") == [prompts[2]]
        assert listed(alice, model="default") == [each for each in prompts[::-1] if each != prompts[2]]
        assert listed(alice, model="other") == []

    def test_times_select_from_since_on_and_before_until(
        self, alice: ApiUser, prompts: list[int], sessions: Sessions
    ) -> None:
        with sessions.begin() as session:
            moved = text("UPDATE prompts SET created_at = timestamptz '2026-01-01T00:00:00Z' + id * interval '1 day'")
            session.execute(moved)

        def day(prompt_id: int) -> str:
            return f"2026-01-{1 + prompt_id:02}T00:00:00Z"

        assert listed(alice, since=day(prompts[2]), until=day(prompts[5])) == prompts[4:1:-1]
        assert listed(alice, since=day(prompts[5])) == prompts[:4:-1]
        assert listed(alice, until=day(prompts[1])) == prompts[:1]
        assert listed(alice, since=f"2026-01-{1 + prompts[5]:02}T02:00:00+02:00") == prompts[:4:-1]

    def test_all_filters_apply_together_and_links_keep_them(
        self, alice: ApiUser, prompts: list[int], worker: Pipeline
    ) -> None:
        worker.process(6)
        filters = {
            "metadata[customer]": "42", "status": "completed", "model": "default",
            "since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00.123456Z",
        }  # fmt: skip
        link = alice.get("/prompts/", query_string=filters | {"limit": 1}).headers["Link"]
        kept = parse_qs(urlsplit(link[1:].partition(">")[0]).query)
        assert kept.keys() == {*filters, "limit", "cursor"}
        assert kept["until"] == ["2100-01-01T00:00:00.123456+00:00"]
        assert listed(alice, **filters) == prompts[4::-2]

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("since=yesterday", "since"),
            ("until=2026-11-30", "until"),
            ("since=2026-11-30T00:00:00", "since"),
            ("status=done", "status"),
            (f"model={'x' * 201}", "model"),
        ],
    )
    def test_an_invalid_filter_is_400_and_named(self, shared_alice: ApiUser, query: str, field: str) -> None:
        errors = assert_problem(shared_alice.get(f"/prompts/?{query}"), 400)["errors"]
        assert [error["field"] for error in errors] == [field]


class TestPlans:
    """Among many prompts, the newest ones that match are found without reading all."""

    OWN = OTHERS = 8_000
    #: Pages of 8 KiB. All prompts have over 500.
    MAX_PAGES = 100

    @pytest.fixture(scope="class")
    @classmethod
    def large(cls, servers: Servers) -> Iterator[Connection]:
        """A database with as many prompts of a user as of all others. The user has the id 1."""
        many = text("""
            INSERT INTO prompts (user_id, prompt_text, websocket, request_id, attempt_limit, status, completed_at,
                metadata, created_at)
            SELECT 1 + n % 2, repeat('word ', 40), false, 'r', 5, 'completed', now(),
                jsonb_build_object('n', CAST(n AS text), 'all', 'x'),
                now() - (:count - n) * interval '1 minute'
            FROM generate_series(1, :count) AS n
        """)
        with servers.database() as name:
            engine = make_engine(servers.settings(name), application_name="test", autocommit=True)
            with engine.connect() as connection:
                connection.execute(text("INSERT INTO users (username, password_hash) VALUES ('a', ''), ('b', '')"))
                connection.execute(many, {"count": cls.OWN + cls.OTHERS})
                connection.execute(text("VACUUM ANALYZE prompts"))
                yield connection
            engine.dispose()

    @pytest.mark.parametrize(
        ("matching", "found"),
        [
            (PromptFilter(metadata={"n": "8"}), 1),
            (PromptFilter(metadata={"n": "8", "all": "x"}), 1),
            (PromptFilter(metadata={"n": "none"}), 0),
            (PromptFilter(metadata={"all": "x"}), 20),
            (PromptFilter(metadata={"n": "none"}, status="completed", model="default"), 0),
            (PromptFilter(model="default"), 20),
        ],
    )
    def test_a_filter_reads_few_pages(self, large: Connection, matching: PromptFilter, found: int) -> None:
        plan: list[str] = []

        def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> Any:
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {statement}", parameters)
            plan.extend(line for (line,) in cursor.fetchall())
            return statement, parameters

        event.listen(large, "before_cursor_execute", explain, retval=True)
        try:
            prompts, _ = queries.page(large, 1, limit=20, max_bytes=10**6, matching=matching)
        finally:
            event.remove(large, "before_cursor_execute", explain)
        assert len(prompts) == found
        buffers = next(line for line in plan if "Buffers:" in line)
        assert sum(map(int, re.findall(r"(?:hit|read)=(\d+)", buffers))) < self.MAX_PAGES, plan
