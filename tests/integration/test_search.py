"""`GET /prompts/similar/`, and the replicas behind it."""

import numpy as np
import pytest
from sqlalchemy import insert, text

from api.services import Services
from shared import users
from shared.database import Sessions
from shared.models import Prompt, VectorLogEntry
from shared.providers.hashing import HashingEmbedder
from shared.search.replicas import Replicas
from tests.support.client import ApiUser, assert_problem
from worker.pipeline import Pipeline

TIDES = ["What causes ocean tides?", "Explain the tides of the ocean", "Why is the tide high at full moon?"]
OTHERS = ["Write a haiku about rust", "Convert 5 miles to kilometres", "Suggest a name for my cat"]


def search(user: ApiUser, query: str, **parameters: object) -> list[dict]:
    response = user.get("/prompts/similar/", query_string={"prompt": query, **parameters})
    assert response.status_code == 200, response.text
    return response.json


def answer(user: ApiUser, worker: Pipeline, texts: list[str]) -> list[int]:
    ids = [user.submit(each) for each in texts]
    worker.process(ids)
    return ids


def test_finds_ones_own_completed_prompts_nearest_first(alice: ApiUser, worker: Pipeline) -> None:
    ids = answer(alice, worker, TIDES + OTHERS)
    found = search(alice, "ocean tides")
    assert len(found) == 5
    assert {each["id"] for each in found[:2]} == set(ids[:2])
    scores = [each["similarity_score"] for each in found]
    assert scores == sorted(scores)
    assert all(0 <= score <= 4 for score in scores)
    assert found[0].keys() == {"id", "user", "prompt_text", "response_text", "similarity_score", "created_at"}
    assert found[0]["response_text"]


def test_the_same_text_has_distance_0(alice: ApiUser, worker: Pipeline) -> None:
    answer(alice, worker, TIDES)
    nearest = search(alice, TIDES[1])[0]
    assert nearest["prompt_text"] == TIDES[1]
    assert nearest["similarity_score"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (5, 5), (50, 6)])
def test_at_most_limit(alice: ApiUser, worker: Pipeline, limit: int, expected: int) -> None:
    answer(alice, worker, TIDES + OTHERS)
    assert len(search(alice, "tides", limit=limit)) == expected


def test_max_score_cuts_off(alice: ApiUser, worker: Pipeline) -> None:
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


def test_unfinished_failed_and_cancelled_prompts_are_not_found(alice: ApiUser, worker: Pipeline) -> None:
    alice.submit("tides")
    alice.post(f"/prompts/{alice.submit('tides')}/cancel/")
    assert search(alice, "tides") == []


def test_a_completed_prompt_is_found_by_the_next_search_in_every_process(
    alice: ApiUser, worker: Pipeline, make_app
) -> None:
    _, elsewhere = make_app()
    for i in range(5):
        (prompt_id,) = answer(alice, worker, [f"number {i}"])
        assert prompt_id in {each["id"] for each in search(alice, f"number {i}")}
        vector = elsewhere.embedder.embed([f"number {i}"])[0]
        assert elsewhere.replicas.search(alice.id, vector, 1)[0].prompt_id == prompt_id


def test_a_deleted_prompt_is_never_found_again_by_any_process(alice: ApiUser, worker: Pipeline, make_app) -> None:
    _, elsewhere = make_app()
    ids = answer(alice, worker, [f"number {i}" for i in range(10)])
    vector = elsewhere.embedder.embed(["number"])[0]
    for gone in ids:
        assert gone in {match.prompt_id for match in elsewhere.replicas.search(alice.id, vector, 50)}
        alice.delete(f"/prompts/{gone}/")
        assert gone not in {match.prompt_id for match in elsewhere.replicas.search(alice.id, vector, 50)}
        assert gone not in {match.prompt_id for match in worker.replicas.search(alice.id, vector, 50)}


def add_completed(sessions: Sessions, user_id: int, texts: list[str]) -> None:
    """Many completed prompts, without a worker."""
    vectors = HashingEmbedder().embed(texts)
    with sessions.begin() as session:
        values = {"user_id": user_id, "websocket": False, "request_id": "r", "attempt_limit": 5}
        done = {"status": "completed", "response_text": "A", "completed_at": text("now()")}
        rows = [values | {"prompt_text": each} for each in texts]
        ids = session.scalars(insert(Prompt).values(done).returning(Prompt.id), rows).all()
        log = [
            {"user_id": user_id, "seq": i + 1, "prompt_id": p, "embedder": "hashing-1", "vector": v.tobytes()}
            for i, (p, v) in enumerate(zip(ids, vectors, strict=True))
        ]
        session.execute(insert(VectorLogEntry), log)
        session.execute(text("UPDATE users SET seq = :n WHERE id = :id"), {"n": len(texts), "id": user_id})


def test_five_prompts_give_five_results_while_another_user_has_5000_with_the_same_words(
    alice: ApiUser, bob: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    add_completed(sessions, bob.id, [f"What causes ocean tides? {i % 7}" for i in range(5_000)])
    ids = answer(alice, worker, [f"What causes ocean tides? {i}" for i in range(5)])
    assert {each["id"] for each in search(alice, "What causes ocean tides?")} == set(ids)
    assert len(search(bob, "What causes ocean tides?", limit=50)) == 50


class TestReplicas:
    def test_agree_with_a_search_by_hand(self, alice: ApiUser, services: Services, sessions: Sessions) -> None:
        rng = np.random.default_rng(1)
        words = ["tide", "moon", "rust", "cat", "ocean", "python", "haiku", "mile", "river", "stone"]
        texts = [" ".join(rng.choice(words, 4)) + f" {i}" for i in range(300)]
        add_completed(sessions, alice.id, texts)
        vectors, query = HashingEmbedder().embed(texts), HashingEmbedder().embed(["moon tide ocean"])[0]
        by_hand = np.sort(((vectors - query) ** 2).sum(axis=1))[:10]
        found = [match.distance for match in services.replicas.search(alice.id, query, 10)]
        assert found == pytest.approx(by_hand.tolist(), abs=1e-5)

    def test_stay_within_their_memory(self, sessions: Sessions) -> None:
        replicas = Replicas(sessions, HashingEmbedder(), memory_mib=1)
        vector = HashingEmbedder().embed(["tide"])[0]
        with sessions.begin() as session:
            ids = [users.create(session, f"user{i}", "hash").id for i in range(8)]
        for user_id in ids:
            add_completed(sessions, user_id, [f"tide {i}" for i in range(200)])
        for _ in range(2):
            for user_id in ids:
                assert len(replicas.search(user_id, vector, 50)) == 50
                assert replicas.nbytes <= 1024 * 1024

    def test_serve_a_user_who_alone_exceeds_it(self, alice: ApiUser, sessions: Sessions) -> None:
        add_completed(sessions, alice.id, [f"tide {i}" for i in range(1_000)])
        replicas = Replicas(sessions, HashingEmbedder(), memory_mib=1)
        vector = HashingEmbedder().embed(["tide 7"])[0]
        assert len(replicas.search(alice.id, vector, 5)) == 5

    def test_read_long_logs_in_batches(self, alice: ApiUser, sessions: Sessions, services: Services) -> None:
        add_completed(sessions, alice.id, [f"tide {i}" for i in range(4_100)])
        vector = HashingEmbedder().embed(["tide 4099"])[0]
        assert services.replicas.search(alice.id, vector, 1)[0].distance == pytest.approx(0, abs=1e-6)

    def test_ignore_vectors_of_another_embedder(self, alice: ApiUser, sessions: Sessions, services: Services) -> None:
        add_completed(sessions, alice.id, ["tide"])
        with sessions.begin() as session:
            session.execute(text("UPDATE vector_log SET embedder = 'another', vector = '\\x00000000'"))
        assert search(alice, "tide") == []

    def test_refuse_a_damaged_vector(self, alice: ApiUser, sessions: Sessions, services: Services) -> None:
        add_completed(sessions, alice.id, ["tide"])
        vector = HashingEmbedder().embed(["tide"])[0]
        for damaged in (vector.tobytes()[:-4], np.full(384, np.nan, np.float32).tobytes()):
            with sessions.begin() as session:
                session.execute(text("UPDATE vector_log SET vector = :v"), {"v": damaged})
            with pytest.raises(ValueError, match="a stored vector"):
                Replicas(sessions, services.embedder, memory_mib=1).search(alice.id, vector, 1)
