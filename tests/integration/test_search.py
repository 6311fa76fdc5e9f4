"""`GET /prompts/similar/`, and the stores behind it."""

import pytest

from api.services import Services
from shared.db.engine import Sessions
from shared.providers import embed
from tests.support.client import ApiUser, assert_problem
from tests.support.vectors import EACH_STORE, add_completed
from worker.pipeline import Pipeline

TIDES = ["What causes ocean tides?", "Explain the tides of the ocean", "Why is the tide high at full moon?"]
OTHERS = ["Write a haiku about rust", "Convert 5 miles to kilometres", "Suggest a name for my cat"]


def search(user: ApiUser, query: str, **parameters: object) -> list[dict]:
    response = user.get("/prompts/similar/", query_string={"prompt": query, **parameters})
    assert response.status_code == 200, response.text
    return response.json


def answer(user: ApiUser, worker: Pipeline, texts: list[str]) -> list[int]:
    ids = [user.submit(each) for each in texts]
    worker.process(len(ids))
    return ids


def nearest(process: Services | Pipeline, user: ApiUser, text: str, k: int) -> list[int]:
    """Return the ids that the store of a process finds."""
    found = process.store.search(user.id, lambda embedder: embed(embedder, [text])[0], k).matches
    return [match.prompt_id for match in found]


@EACH_STORE
def test_a_search_returns_the_callers_completed_prompts_nearest_first(alice: ApiUser, worker: Pipeline) -> None:
    ids = answer(alice, worker, TIDES + OTHERS)
    found = search(alice, "ocean tides")
    assert len(found) == 5
    assert {each["id"] for each in found[:2]} == set(ids[:2])
    scores = [each["similarity_score"] for each in found]
    assert scores == sorted(scores)
    assert all(0 <= score <= 4 for score in scores)
    assert found[0].keys() == {"id", "user", "prompt_text", "response_text", "similarity_score", "created_at"}
    assert found[0]["response_text"]


@EACH_STORE
def test_a_prompt_with_the_same_text_has_distance_0(alice: ApiUser, worker: Pipeline) -> None:
    answer(alice, worker, TIDES)
    nearest = search(alice, TIDES[1])[0]
    assert nearest["prompt_text"] == TIDES[1]
    assert nearest["similarity_score"] == pytest.approx(0, abs=1e-6)


@EACH_STORE
@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (5, 5), (50, 6)])
def test_a_search_returns_at_most_limit_prompts(alice: ApiUser, worker: Pipeline, limit: int, expected: int) -> None:
    answer(alice, worker, TIDES + OTHERS)
    assert len(search(alice, "tides", limit=limit)) == expected


@EACH_STORE
def test_max_score_excludes_prompts_that_are_farther(alice: ApiUser, worker: Pipeline) -> None:
    answer(alice, worker, TIDES + OTHERS)
    everything = search(alice, "ocean tides", limit=50)
    cut = search(alice, "ocean tides", limit=50, max_score=1.2)
    assert cut == [each for each in everything if each["similarity_score"] <= 1.2]
    assert 0 < len(cut) < len(everything)


@pytest.mark.parametrize(
    "query",
    ["", "prompt=", "prompt=%20%09", "prompt=%00", "prompt=a&limit=0", "prompt=a&limit=51", "prompt=a&max_score=nan",
     "prompt=a&max_score=-1", "prompt=a&max_score=x", "prompt=a&colour=red"],
)  # fmt: skip
def test_invalid_parameters_are_400(alice: ApiUser, query: str) -> None:
    assert_problem(alice.get(f"/prompts/similar/?{query}"), 400)


@EACH_STORE
def test_unfinished_failed_and_cancelled_prompts_are_not_found(alice: ApiUser, worker: Pipeline) -> None:
    alice.submit("tides")
    alice.post(f"/prompts/{alice.submit('tides')}/cancel/")
    assert search(alice, "tides") == []


@EACH_STORE
def test_a_completed_prompt_is_found_by_the_next_search_in_every_process(
    alice: ApiUser, worker: Pipeline, make_app
) -> None:
    _, other = make_app()
    for i in range(5):
        (prompt_id,) = answer(alice, worker, [f"number {i}"])
        assert prompt_id in {each["id"] for each in search(alice, f"number {i}")}
        assert nearest(other, alice, f"number {i}", 1) == [prompt_id]


@EACH_STORE
def test_a_deleted_prompt_is_never_found_again_by_any_process(alice: ApiUser, worker: Pipeline, make_app) -> None:
    _, other = make_app()
    ids = answer(alice, worker, [f"number {i}" for i in range(10)])
    for gone in ids:
        assert gone in nearest(other, alice, "number", 50)
        alice.delete(f"/prompts/{gone}/")
        assert gone not in nearest(other, alice, "number", 50)
        assert gone not in nearest(worker, alice, "number", 50)


@EACH_STORE
def test_five_prompts_give_five_results_while_another_user_has_5000_with_the_same_words(
    alice: ApiUser, bob: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    add_completed(sessions, bob.id, [f"What causes ocean tides? {i % 7}" for i in range(5_000)])
    ids = answer(alice, worker, [f"What causes ocean tides? {i}" for i in range(5)])
    assert {each["id"] for each in search(alice, "What causes ocean tides?")} == set(ids)
    assert len(search(bob, "What causes ocean tides?", limit=50)) == 50
