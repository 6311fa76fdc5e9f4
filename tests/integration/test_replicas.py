"""The FAISS store: how replicas are loaded, updated, sealed, damaged and dropped."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from shared.db.engine import Sessions
from shared.providers import Embedders
from shared.search.faiss.faiss_store import FaissStore
from shared.search.faiss.loader import Loader
from shared.search.faiss.sealing import Sealer
from shared.search.faiss.segment_storage import SegmentStorage
from shared.search.store import run_inline
from shared.search.vector_log import LogRow
from tests.support.vectors import (
    EMBEDDER,
    Log,
    clustered_vectors,
    exact_distances,
    fixed_query,
    random_vectors,
)

SEAL_FROM = 600
COUNT = 1_000


class Process:
    """A process's store and sealer, and the users that it asked workers to seal."""

    def __init__(
        self, sessions: Sessions, autocommit_engine: Engine, *, memory_mib: int = 64, segments_url: str = ""
    ) -> None:
        self.seal_requests: list[int] = []
        embedders, storage = Embedders(EMBEDDER), SegmentStorage(segments_url)
        loader = Loader(
            sessions,
            autocommit_engine,
            embedders,
            storage,
            offload=run_inline,
            on_damage=self.seal_requests.append,
        )
        self.store = FaissStore(
            loader,
            memory_mib=memory_mib,
            seal_from=SEAL_FROM,
            ask_to_seal=self.seal_requests.append,
            offload=run_inline,
        )
        self.sealer = Sealer(sessions, embedders, storage, seal_from=SEAL_FROM)

    def nearest(self, user: Log, vector, k: int = 5) -> list[int]:
        return [match.prompt_id for match in self.store.search(user.user_id, fixed_query(vector), k).matches]

    def distances(self, user: Log, vector, k: int = 5) -> list[float]:
        return [match.distance for match in self.store.search(user.user_id, fixed_query(vector), k).matches]


@pytest.fixture
def make_process(sessions: Sessions, autocommit_engine: Engine) -> Callable[..., Process]:
    return lambda **options: Process(sessions, autocommit_engine, **options)


@pytest.fixture
def carol(sessions: Sessions) -> Log:
    return Log(sessions, "carol", EMBEDDER.name, first=1)


@contextmanager
def statements(*engines: Engine) -> Iterator[list[str]]:
    """Collect the statements that are executed in the block."""
    seen: list[str] = []

    def record(_: object, __: object, statement: str, *___: object) -> None:
        seen.append(statement)

    for engine in engines:
        event.listen(engine, "before_cursor_execute", record)
    yield seen
    for engine in engines:
        event.remove(engine, "before_cursor_execute", record)


def test_a_search_runs_one_query_if_the_log_has_not_changed(
    make_process, sessions: Sessions, autocommit_engine: Engine, carol: Log
) -> None:
    vectors, process = random_vectors(COUNT), make_process()
    carol.add(vectors)
    for seal in (False, True):
        if seal:
            assert process.sealer.seal(carol.user_id) == 1
        process.nearest(carol, vectors[0])
        with statements(autocommit_engine, sessions.kw["bind"]) as executed:
            assert process.nearest(carol, vectors[7])[0] == 8
        assert len(executed) == 1


def test_a_search_among_some_prompts_compares_sealed_vectors_exactly(make_process, carol: Log) -> None:
    vectors, process = random_vectors(COUNT), make_process()
    carol.add(vectors)
    assert process.sealer.seal(carol.user_id) == 1
    ids = carol.add(vectors[:50])  # not sealed
    allowed = [*range(1, COUNT, 3), *ids]
    chosen = vectors[[each - 1 for each in range(1, COUNT, 3)] + list(range(50))]
    for query in random_vectors(5, seed=2):
        found = process.store.search(carol.user_id, fixed_query(query), 20, allowed=allowed).matches
        assert [match.distance for match in found] == pytest.approx(exact_distances(chosen, query, 20), abs=1e-5)
        assert {match.prompt_id for match in found} <= set(allowed)


def test_an_applied_change_is_not_read_again(
    make_process, sessions: Sessions, autocommit_engine: Engine, carol: Log
) -> None:
    vectors, process = random_vectors(20), make_process()
    carol.add(vectors[:10])
    process.nearest(carol, vectors[0])
    for i in range(10, 20):
        carol.add(vectors[i : i + 1])
        process.store.apply(carol.user_id, [LogRow(i + 1, i + 1, vectors[i].tobytes())])
    with statements(autocommit_engine, sessions.kw["bind"]) as executed:
        assert process.nearest(carol, vectors[19], 1) == [20]
    assert len(executed) == 1


def test_changes_missed_before_an_applied_change_are_read(make_process, sessions: Sessions, carol: Log) -> None:
    vectors, process = random_vectors(1_300), make_process()
    carol.add(vectors[:10])
    process.store.apply(carol.user_id, [LogRow(10, 10, vectors[9].tobytes())])
    carol.add(vectors[10:])
    process.store.apply(carol.user_id, [LogRow(1_300, 1_300, vectors[-1].tobytes())])
    assert process.nearest(carol, vectors[600], 1) == [601]


def test_a_user_with_few_vectors_left_finds_them_all(make_process, sessions: Sessions, carol: Log) -> None:
    vectors = random_vectors(COUNT)
    carol.add(vectors)
    make_process().sealer.seal(carol.user_id)
    for prompt_id in range(1, COUNT - 7):
        carol.delete(prompt_id)
    assert set(make_process().nearest(carol, vectors[0], 50)) == set(range(COUNT - 7, COUNT + 1))


def test_deletions_alone_do_not_cause_sealing(make_process, sessions: Sessions, carol: Log) -> None:
    vectors, process = random_vectors(20), make_process()
    carol.add(vectors)
    process.nearest(carol, vectors[0])
    carol.delete(1)
    for each in (process, make_process()):
        each.nearest(carol, vectors[0])
        assert each.seal_requests == []
    with sessions() as session:
        assert session.scalar(text("SELECT index_version FROM users WHERE id = :id"), {"id": carol.user_id}) == 0


class TestMemory:
    def test_memory_stays_within_the_limit(self, make_process, sessions: Sessions) -> None:
        process, vectors = make_process(memory_mib=1), random_vectors(200)
        users = [Log(sessions, f"user{i}", EMBEDDER.name) for i in range(8)]
        for user in users:
            user.add(vectors)
        for _ in range(2):
            for user in users:
                assert len(process.nearest(user, vectors[0], 50)) == 50
                assert process.store.nbytes <= 1024 * 1024

    def test_numbers_without_vectors_take_no_memory(self, make_process, sessions: Sessions, carol: Log) -> None:
        vectors, process = random_vectors(50), make_process()
        carol.add(vectors)
        with sessions.begin() as session:
            session.execute(text("UPDATE users SET seq = 200000 WHERE id = :id"), {"id": carol.user_id})
        assert process.nearest(carol, vectors[3], 1) == [4]
        assert process.store.nbytes < 200_000

    def test_a_user_larger_than_the_limit_is_served(self, make_process, sessions: Sessions, carol: Log) -> None:
        vectors = random_vectors(COUNT)
        carol.add(vectors)
        assert make_process(memory_mib=1).nearest(carol, vectors[3], 1) == [4]

    def test_forgetting_a_user_frees_memory_and_the_next_search_loads_again(
        self, make_process, sessions: Sessions, carol: Log
    ) -> None:
        vectors, process = random_vectors(COUNT), make_process()
        carol.add(vectors)
        before = process.distances(carol, vectors[0])
        process.store.forget(carol.user_id)
        assert process.store.nbytes == 0
        assert process.distances(carol, vectors[0]) == before


class TestSealing:
    def test_sealing_is_requested_once_when_a_log_is_long(self, make_process, sessions: Sessions, carol: Log) -> None:
        vectors, process = random_vectors(SEAL_FROM), make_process()
        carol.add(vectors[:-1])
        process.nearest(carol, vectors[0])
        assert process.seal_requests == []
        carol.add(vectors[-1:])
        for _ in range(3):
            process.nearest(carol, vectors[0])
        assert process.seal_requests == [carol.user_id]

    def test_sealing_is_requested_by_processes_that_complete_prompts(
        self, make_process, sessions: Sessions, carol: Log
    ) -> None:
        vectors, process = random_vectors(SEAL_FROM), make_process()
        carol.add(vectors)
        process.store.apply(carol.user_id, [LogRow(SEAL_FROM, SEAL_FROM, vectors[-1].tobytes())])
        assert process.seal_requests == [carol.user_id]

    @pytest.mark.parametrize("make", [random_vectors, clustered_vectors])
    def test_sealing_changes_no_answer(self, make_process, sessions: Sessions, carol: Log, make) -> None:
        vectors, queries = make(COUNT), make(30, seed=2)
        carol.add(vectors)
        old, new = make_process(), make_process()
        old.nearest(carol, queries[0])
        assert old.sealer.seal(carol.user_id) == 1
        for query in queries:
            expected = pytest.approx(exact_distances(vectors, query, 5), abs=1e-5)
            assert old.distances(carol, query) == expected
            assert new.distances(carol, query) == expected
        assert old.store.nbytes < COUNT * 384  # a quarter of what the vectors take

    def test_a_short_log_is_not_sealed(self, make_process, sessions: Sessions, carol: Log) -> None:
        carol.add(random_vectors(SEAL_FROM - 1))
        assert make_process().sealer.seal(carol.user_id) == 0

    def test_after_sealing_new_vectors_are_found_and_deleted_ones_are_not(
        self, make_process, sessions: Sessions, carol: Log
    ) -> None:
        vectors = random_vectors(COUNT + 20)
        carol.add(vectors[:COUNT])
        here, there = make_process(), make_process()
        here.sealer.seal(carol.user_id)
        for i in range(20):
            there.nearest(carol, vectors[i])
            new = carol.add(vectors[COUNT + i : COUNT + i + 1])[0]
            carol.delete(i + 1)
            for process in (here, there):
                assert process.nearest(carol, vectors[COUNT + i], 1) == [new]
                found = process.nearest(carol, vectors[i], 50)
                assert len(found) == 50
                assert i + 1 not in found

    def test_small_segments_are_merged_and_replicas_use_the_merged_one(
        self, make_process, sessions: Sessions, carol: Log
    ) -> None:
        vectors, process = random_vectors(3 * SEAL_FROM), make_process()
        for i in range(3):
            carol.add(vectors[i * SEAL_FROM : (i + 1) * SEAL_FROM])
            process.nearest(carol, vectors[0])
            assert process.sealer.seal(carol.user_id) == 1
            for index in (0, i * SEAL_FROM):
                assert process.distances(carol, vectors[index], 1) == pytest.approx([0], abs=1e-6)
        with sessions() as session:
            assert session.scalar(text("SELECT count(*) FROM segments")) == 1
            assert session.scalar(text("SELECT count(DISTINCT segment_id) FROM segment_parts")) == 1

    def test_sealing_is_requested_when_many_sealed_vectors_are_deleted(
        self, make_process, sessions: Sessions, carol: Log
    ) -> None:
        vectors, process = random_vectors(COUNT), make_process()
        carol.add(vectors)
        process.sealer.seal(carol.user_id)
        process.nearest(carol, vectors[0])
        for prompt_id in range(1, COUNT // 3):
            carol.delete(prompt_id)
        process.nearest(carol, vectors[0])
        assert process.seal_requests == [carol.user_id]
        assert process.sealer.seal(carol.user_id) == 1
        with sessions() as session:
            assert session.scalar(text("SELECT count FROM segments")) == COUNT - COUNT // 3 + 1

    def test_one_process_at_a_time_seals_a_users_log(self, make_process, sessions: Sessions, carol: Log) -> None:
        carol.add(random_vectors(COUNT))
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda _: make_process().sealer.seal(carol.user_id), range(4)))
        assert sum(made) == 1


class TestDamage:
    @pytest.fixture(params=["table", "folder"])
    def url(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return "" if request.param == "table" else f"file://{tmp_path}/segments"

    @staticmethod
    def _flip(sessions: Sessions, tmp_path: Path) -> None:
        """Flip a bit in each stored segment."""
        for file in tmp_path.glob("segments/*/*"):
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
        with sessions.begin() as session:
            session.execute(text("UPDATE segment_parts SET data = set_bit(data, 80000, 1 - get_bit(data, 80000))"))

    @staticmethod
    def _lose(sessions: Sessions, tmp_path: Path) -> None:
        for file in tmp_path.glob("segments/*/*"):
            file.unlink()
        with sessions.begin() as session:
            session.execute(text("DELETE FROM segment_parts"))

    @pytest.mark.parametrize("damage", [_flip, _lose])
    def test_damage_is_logged_and_repaired_and_changes_no_answer(
        self, make_process, sessions: Sessions, carol: Log, tmp_path: Path, url: str, damage: Callable, capsys
    ) -> None:
        vectors = random_vectors(COUNT)
        carol.add(vectors)
        process = make_process(segments_url=url)
        process.sealer.seal(carol.user_id)
        damage(sessions, tmp_path)
        expected = pytest.approx(exact_distances(vectors, vectors[5], 5), abs=1e-5)
        assert process.distances(carol, vectors[5]) == expected
        assert "segment damaged" in capsys.readouterr().out
        assert carol.user_id in process.seal_requests
        assert process.sealer.seal(carol.user_id) == 1
        assert process.distances(carol, vectors[5]) == expected
        fresh = make_process(segments_url=url)
        assert fresh.distances(carol, vectors[5]) == expected
        assert fresh.seal_requests == []
        assert len(list(tmp_path.glob("segments/*/*"))) == (1 if url else 0)


def test_concurrent_searches_changes_and_sealing_stay_consistent(make_process, sessions: Sessions, carol: Log) -> None:
    """A search never finds what was deleted before it, and always finds what was added before it."""
    vectors = random_vectors(2_000)
    carol.add(vectors[:1_000])
    process, done = make_process(), []

    def change() -> None:
        for i in range(100):
            carol.add(vectors[1_000 + 10 * i : 1_010 + 10 * i])
            carol.delete(i + 1)
            done.append(i)

    def search(seed: int) -> None:
        while len(done) < 100:
            i = len(done) - 1
            query = vectors[max(i, 0)]
            found = process.nearest(carol, query, 10)
            assert len(found) == 10
            if i >= 0:
                assert i + 1 not in found

    def seal() -> None:
        while len(done) < 100:
            make_process().sealer.seal(carol.user_id)

    with ThreadPoolExecutor(5) as pool:
        tasks = [pool.submit(change), pool.submit(seal), *(pool.submit(search, i) for i in range(3))]
        for task in tasks:
            task.result(timeout=60)
    assert process.distances(carol, vectors[1_500], 1) == pytest.approx([0], abs=1e-6)


def test_a_search_reports_vectors_that_were_missing_when_it_began(
    make_process, sessions: Sessions, autocommit_engine: Engine, carol: Log
) -> None:
    """They may be added between its reads, and what it compares may be older."""
    process, vectors = make_process(), random_vectors(3)
    carol.add(vectors[:1])
    process.nearest(carol, vectors[0])

    def set_missing(value: bool) -> None:
        change = "UPDATE users SET vectors_missing = :value, index_version = index_version + 1 WHERE id = :id"
        with sessions.begin() as session:
            session.execute(text(change), {"value": value, "id": carol.user_id})

    set_missing(True)
    reads: list[str] = []

    def change_before_the_second_read(_: object, __: object, statement: str, *___: object) -> None:
        reads.append(statement)
        if len(reads) == 2:
            set_missing(False)

    event.listen(autocommit_engine, "before_cursor_execute", change_before_the_second_read)
    found = process.store.search(carol.user_id, fixed_query(vectors[0]), 1)
    event.remove(autocommit_engine, "before_cursor_execute", change_before_the_second_read)
    assert len(reads) >= 2
    assert found.vectors_missing
