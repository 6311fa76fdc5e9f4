"""What every vector store does with the same log: FAISS in a process, and pgvector."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
from sqlalchemy import Engine

from shared.db.engine import Sessions
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.providers import Embedders, embed
from shared.providers.hashing import HashingEmbedder
from shared.search import vector_log
from shared.search.factory import make_store
from shared.search.store import Match, VectorStore
from shared.search.vector_log import LogRow
from shared.settings import Settings
from tests.support.servers import MAX_WAIT_SECONDS
from tests.support.vectors import EACH_STORE, Log, SmallEmbedder

pytestmark = EACH_STORE

SMALL = SmallEmbedder()


@pytest.fixture
def make(settings: Settings, sessions: Sessions, autocommit_engine: Engine) -> Callable[..., VectorStore]:
    """Creates stores, each as in a process of its own."""
    queue = Queue(make_celery(settings), make_redis(settings))

    def make(current=SMALL, previous=None) -> VectorStore:
        return make_store(settings, sessions, autocommit_engine, Embedders(current, previous), queue)

    return make


@pytest.fixture
def store(make) -> VectorStore:
    return make()


@pytest.fixture
def alice(sessions: Sessions) -> Log:
    return Log(sessions, "alice")


def search(store: VectorStore, user: Log, text: str = "0", k: int = 10) -> list[Match]:
    return store.search(user.user_id, lambda embedder: embed(embedder, [text])[0], k).matches


def ids(store: VectorStore, user: Log, text: str = "0", k: int = 1_000) -> list[int]:
    return [match.prompt_id for match in search(store, user, text, k)]


def sentences(count: int) -> list[str]:
    """Different texts that share words."""
    verbs, nouns, places = (
        ["explain", "draw", "count", "name", "find"],
        ["tides", "cats", "taxes"],
        ["at sea", "in Rome"],
    )
    return [f"{verbs[i % 5]} {nouns[i % 3]} {places[i % 2]} number {i}" for i in range(count)]


def numbers(first: int, last: int) -> list[str]:
    return [str(i) for i in range(first, last)]


def test_a_search_returns_the_true_nearest(make, sessions: Sessions) -> None:
    hashing = HashingEmbedder()
    store, alice = make(hashing), Log(sessions, "alice", hashing.name)
    texts = sentences(300)
    vectors = embed(hashing, texts)
    prompt_ids = alice.add(vectors)
    for text in texts[:20]:
        distances = np.square(vectors.astype(float) - embed(hashing, [text])[0]).sum(axis=1)
        found = search(store, alice, text)
        assert [match.distance for match in found] == pytest.approx(np.sort(distances)[:10], abs=1e-5)
        exact = dict(zip(prompt_ids, distances, strict=True))
        assert [exact[match.prompt_id] for match in found] == pytest.approx([m.distance for m in found], abs=1e-5)
        assert found[0].distance == pytest.approx(0, abs=1e-6)
        assert min(match.distance for match in found) >= 0


def test_a_user_without_vectors_finds_nothing(store: VectorStore, alice: Log) -> None:
    assert search(store, alice) == []


def test_a_user_who_does_not_exist_finds_nothing(store: VectorStore) -> None:
    assert store.search(2**40, lambda _: SMALL.embed(["0"])[0], 10).matches == []


def test_a_search_for_more_than_there_are_returns_all(store: VectorStore, alice: Log) -> None:
    added = alice.add(SMALL.embed(numbers(0, 7)))
    assert sorted(ids(store, alice, k=50)) == added
    assert len(ids(store, alice, k=3)) == 3


def test_a_search_among_some_prompts_compares_all_of_them_and_no_others(make, alice: Log) -> None:
    store = make()
    added = alice.add(SMALL.embed(numbers(0, 300)))
    everything = search(store, alice, k=1_000)
    allowed = [match.prompt_id for match in everything[-40:]]  # the farthest ones

    def among(prompt_ids: list[int], k: int) -> list[Match]:
        return store.search(alice.user_id, lambda embedder: embed(embedder, ["0"])[0], k, allowed=prompt_ids).matches

    assert [match.prompt_id for match in among(allowed, 10)] == allowed[:10]
    assert [match.distance for match in among(allowed, 40)] == pytest.approx([m.distance for m in everything[-40:]])
    assert among([], 10) == []
    assert among([added[-1] + 1], 10) == []
    alice.delete(allowed[0])
    (new,) = alice.add(SMALL.embed(["0"]))
    assert [match.prompt_id for match in among([*allowed, new], 2)] == [new, allowed[1]]


def test_an_added_vector_is_found_by_the_next_search_in_every_process(make, alice: Log) -> None:
    here, other = make(), make()
    for i in range(5):
        (added,) = alice.add(SMALL.embed([str(i)]))
        assert ids(here, alice, str(i), 1) == ids(other, alice, str(i), 1) == [added]


def test_a_deleted_vector_is_found_by_no_process(make, alice: Log) -> None:
    here, other = make(), make()
    left = alice.add(SMALL.embed(numbers(0, 6)))
    while left:
        assert sorted(ids(here, alice)) == sorted(ids(other, alice)) == left
        alice.delete(left.pop())
    assert ids(here, alice) == ids(other, alice) == []


def test_another_users_vectors_are_never_found(store: VectorStore, alice: Log, sessions: Sessions) -> None:
    bob = Log(sessions, "bob")
    others = bob.add(SMALL.embed(["0"] * 50))
    added = alice.add(SMALL.embed(numbers(100, 103)))
    assert sorted(ids(store, alice)) == added
    assert sorted(ids(store, bob)) == others


def test_changes_may_be_applied_in_any_order_and_twice(make, alice: Log) -> None:
    store, vectors = make(), SMALL.embed(numbers(0, 3))
    added = alice.add(vectors)
    for seq in (2, 3, 1, 3):
        store.apply(alice.user_id, [LogRow(seq, added[seq - 1], vectors[seq - 1].tobytes())])
    assert sorted(ids(store, alice)) == added


def test_a_long_log_is_read_in_several_batches(store: VectorStore, alice: Log) -> None:
    added = alice.add(SMALL.embed(numbers(0, 2 * vector_log.BATCH_ROWS)))
    for gone in (added.pop(0), added.pop(vector_log.BATCH_ROWS), added.pop()):
        alice.delete(gone)
    assert sorted(ids(store, alice, k=2_000)) == added
    added += alice.add(SMALL.embed(numbers(5_000, 5_000 + vector_log.BATCH_ROWS + 1)))
    assert sorted(ids(store, alice, k=2_000)) == added


@pytest.mark.parametrize(("name", "dimension"), [("other", 24), ("other", 32), ("small", 24)])
def test_after_a_reindex_searches_compare_the_new_vectors(make, alice: Log, name: str, dimension: int) -> None:
    new = SmallEmbedder(name, dimension)
    store, restarted = make(SMALL, new), make(new, SMALL)
    texts = numbers(0, 20)
    added = alice.add(SMALL.embed(texts))
    assert ids(store, alice, "3", 1) == ids(restarted, alice, "3", 1) == [added[3]]
    alice.reindex(name, new.embed(texts[::-1]))
    for each in (store, restarted):
        (match,) = search(each, alice, "3", 1)
        assert (match.prompt_id, match.distance) == (added[16], pytest.approx(0, abs=1e-6))
        assert sorted(ids(each, alice)) == added


def test_a_result_has_the_embedder_and_the_querys_vector_that_were_compared(make, alice: Log) -> None:
    new = SmallEmbedder("new", 32)
    store = make(new, SMALL)
    alice.add(SMALL.embed(numbers(0, 5)))
    found = store.search(alice.user_id, lambda embedder: embedder.embed(["3"])[0], 1)
    assert (found.embedder, found.vector.tolist()) == (SMALL, SMALL.embed(["3"])[0].tolist())
    alice.reindex("new", new.embed(numbers(0, 5)))
    found = store.search(alice.user_id, lambda embedder: embedder.embed(["3"])[0], 1)
    assert (found.embedder, found.vector.tolist()) == (new, new.embed(["3"])[0].tolist())


def test_vectors_by_an_unavailable_embedder_are_not_compared(make, alice: Log) -> None:
    alice.add(SMALL.embed(numbers(0, 5)))
    assert ids(make(SmallEmbedder("other", 32)), alice) == []
    assert len(ids(make(), alice)) == 5


def test_damaged_vectors_are_ignored_and_all_others_found(store: VectorStore, alice: Log) -> None:
    valid = [vector.tobytes() for vector in SMALL.embed(numbers(0, 6))]
    nan, long = np.full(24, np.nan, "<f4").tobytes(), np.full(24, 3, "<f4").tobytes()
    added = alice.add_stored([valid[0], b"", valid[1], valid[2][:-4], nan, valid[3], long, valid[4] + valid[5]])
    assert sorted(ids(store, alice)) == [added[i] for i in (0, 2, 5)]


def test_after_forgetting_a_user_a_search_finds_the_same(make, alice: Log) -> None:
    store, other = make(), make()
    alice.add(SMALL.embed(numbers(0, 700)))
    before = search(store, alice)
    store.forget(alice.user_id)
    assert search(other, alice) == search(store, alice) == before


def test_concurrent_searches_never_find_a_vector_that_was_deleted_before_them(make, alice: Log) -> None:
    stores, deleted, wrong, done = [make(), make()], set(), [], threading.Event()
    kept = alice.add(SMALL.embed(numbers(0, 300)))

    def change() -> None:
        for i in range(60):
            kept.extend(alice.add(SMALL.embed([str(1_000 + i)])))
            gone = kept.pop(i)
            alice.delete(gone)
            deleted.add(gone)
        done.set()

    def search_repeatedly(store: VectorStore) -> None:
        while not done.is_set():
            before = set(deleted)
            try:
                found = set(ids(store, alice))
                wrong.extend(found & before)
                assert len(found) >= 299
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=search_repeatedly, args=[store]) for store in stores * 2]
    for thread in threads:
        thread.start()
    try:
        change()
    finally:
        done.set()
        for thread in threads:
            thread.join(MAX_WAIT_SECONDS)
    assert wrong == []
    assert [sorted(ids(store, alice)) for store in stores] == [sorted(kept)] * 2
