"""`GET /prompts/similar/` by words, and its filters, in every mode."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from urllib.parse import quote

import pytest
from sqlalchemy import Engine, text

from shared.db.engine import Sessions
from shared.errors import ProviderUnavailableError
from shared.search.prompt_search import DEPTH, Mode
from shared.search.words import word_writer
from tests.support.client import ApiUser, assert_problem
from tests.support.providers import Script
from tests.support.vectors import EACH_STORE, add_completed
from worker.pipeline import Pipeline

EACH_MODE = pytest.mark.parametrize("mode", list(Mode))
BY_WORDS = pytest.mark.parametrize("mode", [Mode.TEXT, Mode.HYBRID])
FILLERS = [f"Tell me something about number {i}" for i in range(30)]


def search(user: ApiUser, query: str, mode: str = Mode.TEXT, **parameters: object) -> list[dict]:
    response = user.get("/prompts/similar/", query_string={"prompt": query, "mode": mode, **parameters})
    assert response.status_code == 200, response.text
    return response.json


def ids(user: ApiUser, query: str, mode: str = Mode.TEXT, **parameters: object) -> list[int]:
    return [each["id"] for each in search(user, query, mode, **parameters)]


def answer(user: ApiUser, worker: Pipeline, prompt: str, response: str = "Certainly.") -> int:
    prompt_id = user.submit(prompt)
    replace(worker, generator=Script(response)).process(1)
    return prompt_id


def change(sessions: Sessions, columns: str, **parameters: object) -> None:
    with sessions.begin() as session:
        session.execute(text(f"UPDATE prompts SET {columns}"), parameters)  # noqa: S608


@BY_WORDS
@pytest.mark.parametrize(
    "identifier",
    ["ERR_CONN_4711", "ORD-2024-00317", "user@host.example", "/etc/hosts", "v1.2.3", "NullPointerException", "C#",
     "東京", "get_user_by_id", "well-known", "Ångström", "don't", "x1", "z", "a" * 300, "50%", "\\back\\slash",
     "O'Neill"],
)  # fmt: skip
def test_identifiers_and_names_are_found_in_prompts_and_in_answers(
    alice: ApiUser, sessions: Sessions, mode: Mode, identifier: str
) -> None:
    texts = [*FILLERS, f"What does {identifier} stand for?", "What does the other thing stand for?"]
    named, answered = add_completed(sessions, alice.id, texts, answers=["-"] * 31 + [f"It is like {identifier}."])[-2:]
    assert set(ids(alice, identifier, mode, limit=2)) == {named, answered}


@BY_WORDS
@pytest.mark.parametrize("query", ["pointer", "null exception", "NULLPOINTEREXCEPTION"])
def test_parts_of_an_identifier_are_found_in_any_case(
    alice: ApiUser, sessions: Sessions, mode: Mode, query: str
) -> None:
    (*_, wanted) = add_completed(sessions, alice.id, [*FILLERS, "Why do I get a NullPointerException?"])
    assert ids(alice, query, mode, limit=1) == [wanted]


def test_the_rarest_words_count_most(alice: ApiUser, sessions: Sessions) -> None:
    texts = [*FILLERS, "ERR_CONN_4711 again", "Tell me something about number 4712", "ERR_CONN_4712"]
    code, *_ = add_completed(sessions, alice.id, texts)[-3:]
    assert ids(alice, "tell me something about ERR_CONN_4711")[0] == code


def test_a_prompt_with_more_of_the_words_comes_first_even_if_all_of_them_are_common(
    alice: ApiUser, sessions: Sessions
) -> None:
    common = [f"{word} {i}" for i in range(300) for word in ("red", "green", "blue")]
    (*_, wanted) = add_completed(sessions, alice.id, [*common, "red green blue and more"])
    assert ids(alice, "red green blue", limit=1) == [wanted]


@EACH_STORE
@EACH_MODE
def test_a_prompt_that_a_client_has_seen_completed_is_found_by_its_next_search_in_every_mode_and_process(
    alice: ApiUser, worker: Pipeline, make_app: Callable, mode: Mode
) -> None:
    other, _ = make_app()
    for i in range(4):
        prompt_id = answer(alice, worker, f"What is TICKET-{i}?")
        assert prompt_id in ids(alice, f"TICKET-{i}", mode)
        assert prompt_id in ids(alice.at(other), f"TICKET-{i}", mode)


@EACH_MODE
def test_only_completed_prompts_are_found(alice: ApiUser, mode: Mode) -> None:
    alice.submit("tides")
    alice.post(f"/prompts/{alice.submit('tides')}/cancel/")
    assert ids(alice, "tides", mode) == []


@BY_WORDS
def test_a_deleted_prompt_is_found_by_no_search_and_its_words_are_gone(
    alice: ApiUser, worker: Pipeline, engine: Engine, mode: Mode
) -> None:
    prompt_id = answer(alice, worker, "What is a xylophone?")
    assert ids(alice, "xylophone", mode) == [prompt_id]
    alice.delete(f"/prompts/{prompt_id}/")
    assert ids(alice, "xylophone", mode) == []
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM prompt_words")) == 0


@EACH_MODE
def test_a_search_finds_the_callers_own_prompts_only_in_every_mode(
    alice: ApiUser, bob: ApiUser, sessions: Sessions, mode: Mode
) -> None:
    add_completed(sessions, bob.id, [f"What is ERR_CONN_4711? {i}" for i in range(300)])
    own = add_completed(sessions, alice.id, [f"What is ERR_CONN_4711? {i}" for i in range(5)])
    assert sorted(ids(alice, "ERR_CONN_4711", mode)) == own
    assert len(ids(bob, "ERR_CONN_4711", mode, limit=50)) == 50


@pytest.mark.parametrize("query", ["!!!", "…", "- _ -"])
def test_a_query_without_words_is_no_error(alice: ApiUser, sessions: Sessions, query: str) -> None:
    (own,) = add_completed(sessions, alice.id, ["tides"])
    assert ids(alice, query, Mode.TEXT) == []
    assert ids(alice, query, Mode.HYBRID) == [own]


def test_a_query_of_many_words_finds_prompts_that_have_some_of_them(alice: ApiUser, sessions: Sessions) -> None:
    (*_, wanted) = add_completed(sessions, alice.id, [*FILLERS, "What causes ocean tides?"])
    words = " ".join(f"word{i}" for i in range(20))
    assert ids(alice, f"{words} ocean tides {words}")[0] == wanted


def test_texts_of_any_length_are_found(alice: ApiUser, sessions: Sessions) -> None:
    huge = " ".join(f"word{i}" for i in range(150_000))  # more than a tsvector holds
    own = add_completed(sessions, alice.id, ["x" * 100_000, "many words", "tail"], answers=["A", huge, "B " * 50_000])
    assert ids(alice, "x" * 7_000) == []
    assert ids(alice, "word77") == [own[1]]
    assert ids(alice, "tail") == [own[2]]


def test_prompts_that_the_feed_no_longer_has_are_found(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_writer, "BATCH_PROMPTS", 3)
    first = [answer(alice, worker, f"an old tide {i}") for i in range(8)]
    with sessions.begin() as session:
        session.execute(text("DELETE FROM feed WHERE seq < 5"))  # FEED_RETENTION_DAYS
    assert sorted(ids(alice, "tide", limit=50)) == first
    later = [answer(alice, worker, f"a new tide {i}") for i in range(8)]
    assert sorted(ids(alice, "tide", limit=50)) == first + later


def test_large_texts_are_added_in_small_batches(
    alice: ApiUser, worker: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_writer, "BATCH_BYTES", 50)
    own = [answer(alice, worker, f"tide {i} " + "x" * 40) for i in range(4)]
    assert sorted(ids(alice, "tide", limit=50)) == own


class TestScores:
    def test_similarity_score_is_null_where_no_vector_was_compared(self, alice: ApiUser, sessions: Sessions) -> None:
        add_completed(sessions, alice.id, ["What causes ocean tides?"])
        (found,) = search(alice, "tides", Mode.TEXT)
        assert found["similarity_score"] is None
        assert found["prompt_text"] == "What causes ocean tides?"

    def test_hybrid_has_the_distance_of_what_was_found_by_its_vector(self, alice: ApiUser, sessions: Sessions) -> None:
        answers = ["A"] * 100 + ["ERR_CONN_4711"]
        (*_, wanted) = add_completed(sessions, alice.id, [f"tides {i}" for i in range(100)] + ["z"], answers=answers)
        by_id = {each["id"]: each["similarity_score"] for each in search(alice, "tides ERR_CONN_4711", Mode.HYBRID)}
        assert by_id.pop(wanted) is None
        expected = {each["id"]: each["similarity_score"] for each in search(alice, "tides ERR_CONN_4711", Mode.VECTOR)}
        assert len(by_id) == 4
        assert by_id.items() <= expected.items()

    @BY_WORDS
    def test_max_score_works_with_vectors_only(self, alice: ApiUser, mode: Mode) -> None:
        problem = assert_problem(alice.get(f"/prompts/similar/?prompt=a&max_score=1&mode={mode}"), 400)
        assert problem["errors"][0]["field"] == "max_score"

    def test_an_unknown_mode_is_400(self, alice: ApiUser) -> None:
        assert_problem(alice.get("/prompts/similar/?prompt=a&mode=fuzzy"), 400)

    def test_search_by_words_needs_no_embedder(self, alice: ApiUser, services, sessions: Sessions, monkeypatch) -> None:
        (own,) = add_completed(sessions, alice.id, ["tides"])

        def fail(*_: object) -> None:
            raise ProviderUnavailableError("The embedder cannot be reached.")

        monkeypatch.setattr("api.server.offloaded_embedding.embed", fail)
        assert ids(alice, "tides", Mode.TEXT) == [own]
        assert alice.get("/prompts/similar/?prompt=tides&mode=hybrid").status_code in (502, 503)


@EACH_STORE
@EACH_MODE
class TestFilters:
    """Of 300 prompts, only the last ones have what is asked for, and they are the farthest from the query."""

    COUNT = 3 * DEPTH

    @pytest.fixture
    def prompts(self, alice: ApiUser, sessions: Sessions, vector_store: str) -> list[int]:
        near = [f"ocean tides {i}" for i in range(self.COUNT - 4)]
        far = [f"{word} with one tides in it, and a lot of other words" for word in ("cats", "taxes", "haiku", "rust")]
        found = add_completed(sessions, alice.id, near + far)
        change(sessions, "route = 'other', metadata = '{\"team\": \"a\", \"n\": \"' || id || '\"}' WHERE id = ANY(:ids)"
               .replace("'{", "CAST('{").replace("}'", "}' AS jsonb)"), ids=found[-4:])  # fmt: skip
        return found

    @pytest.mark.parametrize(("limit", "expected"), [(2, 2), (4, 4), (5, 4), (50, 4)])
    def test_filters_apply_before_the_nearest_are_chosen_so_there_are_never_fewer_results_than_there_are(
        self, alice: ApiUser, prompts: list[int], mode: Mode, limit: int, expected: int
    ) -> None:
        found = ids(alice, "ocean tides", mode, limit=limit, model="other")
        assert len(found) == expected
        assert set(found) <= set(prompts[-4:])

    def test_several_pairs_of_metadata_must_all_match(self, alice: ApiUser, prompts: list[int], mode: Mode) -> None:
        def having(**pairs: str) -> list[int]:
            return sorted(ids(alice, "ocean tides", mode, **{f"metadata[{key}]": each for key, each in pairs.items()}))

        assert having(team="a") == prompts[-4:]
        assert having(team="a", n=str(prompts[-2])) == [prompts[-2]]
        assert having(team="b") == having(team="a", n="0") == []

    def test_times_are_since_and_until(
        self, alice: ApiUser, prompts: list[int], sessions: Sessions, mode: Mode
    ) -> None:
        noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
        old = "created_at = :noon - (:last - id) * interval '1 hour'"
        change(sessions, old, noon=noon, last=prompts[-1])
        since = (noon - timedelta(hours=2)).isoformat()
        assert sorted(ids(alice, "ocean tides", mode, since=since)) == prompts[-3:]
        assert sorted(ids(alice, "ocean tides", mode, since=since, until=noon.isoformat())) == prompts[-3:-1]

    def test_a_filter_that_lets_most_prompts_through_changes_no_order(
        self, alice: ApiUser, prompts: list[int], mode: Mode
    ) -> None:
        everything = ids(alice, "ocean tides", mode, limit=10)
        assert ids(alice, "ocean tides", mode, limit=10, model="default") == everything

    def test_only_completed_prompts_are_found_whatever_the_status(
        self, alice: ApiUser, prompts: list[int], mode: Mode
    ) -> None:
        assert ids(alice, "ocean tides", mode, status="failed") == []
        assert len(ids(alice, "ocean tides", mode, status="completed")) == 5


@EACH_MODE
def test_the_next_link_leads_through_all_results_with_the_same_mode_and_filters(
    make_app: Callable, sessions: Sessions, mode: Mode
) -> None:
    app, _ = make_app(max_page_bytes=3_000)
    alice = ApiUser(app, "alice")
    own = add_completed(sessions, alice.id, [f"tides {i} " + "y" * 600 for i in range(12)])
    change(sessions, 'metadata = CAST(\'{"a b": "ü&c"}\' AS jsonb) WHERE id <> :id', id=own[0])
    url = f"/prompts/similar/?prompt=tides&mode={mode}&limit=50&metadata[{quote('a b')}]={quote('ü&c')}"
    pages = []
    while url:
        response = alice.get(url)
        pages.append([each["id"] for each in response.json])
        url = response.headers["Link"].split(">")[0][1:] if "Link" in response.headers else ""
    assert len(pages) > 2
    assert sorted(chain.from_iterable(pages)) == own[1:]
