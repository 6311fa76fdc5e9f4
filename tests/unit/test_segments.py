"""Sealed segments and flat indexes without a database, and the planning of compactions."""

import numpy as np
import pytest

from shared.providers import Vectors
from shared.search.faiss import segment
from shared.search.faiss.flat_index import FlatIndex
from shared.search.faiss.sealing import MERGE_RATIO, MIN_SEGMENT_VECTORS, SegmentRange, plan
from shared.search.faiss.segment import DamagedSegmentError, Segment
from shared.search.faiss.segment_storage import SegmentInfo
from shared.search.vector_log import Changes, LogRow
from tests.support.vectors import EMBEDDER, clustered_vectors, random_vectors

COUNT = 2_000
ROTATION = [0.07386118918657303, 0.23291344940662384, -0.5310910940170288, 0.8113187551498413]


def seal(vectors: Vectors, seqs: np.ndarray | None = None, count: int | None = None) -> Segment:
    seqs = np.arange(1, len(vectors) + 1) if seqs is None else seqs
    blocks = ((seqs[i : i + 500], vectors[i : i + 500]) for i in range(0, len(vectors), 500))
    return segment.decode(segment.build(vectors, blocks, count or len(vectors)))


def hashed_vectors(count: int, seed: int = 1) -> Vectors:
    random = np.random.default_rng(seed)
    words = [f"word{i}" for i in range(400)]
    return EMBEDDER.embed([" ".join(random.choice(words, random.integers(3, 12))) for _ in range(count)])


def tight_vectors(count: int, seed: int = 1) -> Vectors:
    return clustered_vectors(count, seed, clusters=10, noise=0.3)


def recall(sealed: Segment, vectors: Vectors, queries: Vectors, k: int) -> float:
    """Return the share of the `k` nearest that are among the candidates. Of equally near ones, any counts."""
    found = 0
    for query in queries:
        similarities = vectors @ query
        threshold = np.sort(similarities)[-k] - 1e-6
        found += min(k, int((similarities[sealed.candidates(query, k).seqs - 1] >= threshold).sum()))
    return found / (k * len(queries))


@pytest.fixture(scope="module", params=[random_vectors, clustered_vectors, hashed_vectors, tight_vectors])
def kind(request: pytest.FixtureRequest) -> tuple[Segment, Vectors, Vectors]:
    """A segment of one kind of vectors, its vectors, and queries of the same kind."""
    vectors = request.param(COUNT)
    return seal(vectors), vectors, request.param(40, seed=2)


@pytest.mark.parametrize("k", [1, 5, 50])
def test_candidates_contain_the_nearest_for_all_kinds_of_data(kind: tuple[Segment, Vectors, Vectors], k: int) -> None:
    sealed, vectors, queries = kind
    assert recall(sealed, vectors, queries, k) >= 0.99


def test_a_segment_takes_less_than_a_quarter_of_its_vectors_memory(kind: tuple[Segment, Vectors, Vectors]) -> None:
    assert kind[0].nbytes / COUNT < 4 * 384 / 4
    assert len(kind[0]) == COUNT


def test_a_large_segment_takes_even_less_memory_per_vector() -> None:
    vectors = clustered_vectors(COUNT)
    large = seal(vectors, count=segment.LARGE_FROM)
    assert large.nbytes / COUNT < 4 * 384 / 7
    assert recall(large, vectors, clustered_vectors(40, seed=2), 5) >= 0.99


@pytest.mark.parametrize("dimension", [8, 99, 768])
def test_segments_work_for_any_dimension(dimension: int) -> None:
    vectors = random_vectors(400, dimension=dimension)
    assert recall(seal(vectors), vectors, random_vectors(20, seed=2, dimension=dimension), 5) >= 0.99


def test_a_segment_keeps_numbers_of_any_size() -> None:
    seqs = np.array([7, 2**31, 2**40, 2**62] * 100)
    seqs.sort()
    assert (seal(random_vectors(400), seqs).seqs == seqs).all()


def test_deleted_vectors_are_replaced_by_others_among_the_candidates() -> None:
    vectors = clustered_vectors(COUNT)
    sealed, query = seal(vectors), vectors[0]
    order = np.argsort(-(vectors @ query)) + 1
    sealed.mark_deleted(order[:1_500])
    sealed.mark_deleted(np.array([0, COUNT + 1, 2**50]))  # numbers that it does not have
    candidates = set(sealed.candidates(query, 5).seqs.tolist())
    assert not candidates & set(order[:1_500].tolist())
    assert set(order[1_500:1_505].tolist()) <= candidates


@pytest.mark.parametrize("copies", [100, COUNT])
def test_equal_vectors_are_all_found(copies: int) -> None:
    distinct = hashed_vectors(COUNT // copies)
    vectors = np.tile(distinct, (copies, 1))
    sealed = seal(vectors)
    for query in [*distinct, *hashed_vectors(10, seed=3)]:
        similarities = vectors @ query
        best = similarities[sealed.candidates(query, 5).seqs - 1]
        assert np.sort(best)[-5:] == pytest.approx(np.sort(similarities)[-5:], abs=1e-5)


def test_opposite_vectors_are_found_if_there_are_no_nearer_ones() -> None:
    one = random_vectors(1)
    sealed = seal(np.concatenate([np.tile(one, (3, 1)), np.tile(-one, (1_000, 1))]))
    assert len(np.unique(sealed.candidates(one[0], 5).seqs)) >= 5


def test_a_payload_of_another_format_counts_as_damaged() -> None:
    for payload in (b"", b"something else", bytes(200)):
        with pytest.raises(DamagedSegmentError):
            segment.decode(payload)


def test_the_rotation_never_changes() -> None:
    """Stored segments depend on it."""
    rotation = segment.rotation(4)
    assert rotation @ rotation.T == pytest.approx(np.eye(4), abs=1e-6)
    assert rotation[0] == pytest.approx(ROTATION, abs=1e-5)


def changes(first: int, vectors: Vectors) -> Changes:
    seqs = np.arange(first, first + len(vectors))
    none = np.empty(0, np.int64)
    return Changes(int(seqs[-1]), seqs, seqs, vectors, none, none)


class TestFlatIndex:
    def test_a_search_finds_the_nearest(self) -> None:
        vectors, index = random_vectors(1_000), FlatIndex(384)
        for start in (0, 100, 101, 600):
            stop = {0: 100, 100: 101, 101: 600, 600: 1_000}[start]
            index.add(changes(start + 1, vectors[start:stop]))
        assert index.search(vectors[77], 3)[0].prompt_id == 78
        assert len(index) == 1_000

    def test_removed_vectors_are_not_found_and_their_memory_is_freed(self) -> None:
        vectors, index = random_vectors(1_000), FlatIndex(384)
        index.add(changes(1, vectors))
        full = index.nbytes
        for prompt_id in range(1, 991):
            assert index.remove(prompt_id)
        assert not index.remove(1)
        assert {match.prompt_id for match in index.search(vectors[0], 50)} == set(range(991, 1_001))
        assert index.nbytes < full / 5

    def test_a_running_search_does_not_see_later_additions(self) -> None:
        vectors, index = random_vectors(100), FlatIndex(384)
        index.add(changes(1, vectors[:50]))
        before = index._rows
        index.add(changes(51, vectors[50:]))
        assert len(before[1]) == 50
        assert (before[0] == vectors[:50]).all()


class TestChanges:
    def test_a_damaged_vector_is_ignored_and_the_others_are_kept(self, capsys: pytest.CaptureFixture) -> None:
        good = random_vectors(1)[0].tobytes()
        broken = [good[:-4], np.full(384, np.nan, np.float32).tobytes(), np.zeros(384, np.float32).tobytes()]
        for each in broken:
            rows = [row(1, 11, each), row(2, 12, good), row(3, 13, None)]
            found = Changes.from_rows(rows, 384)
            assert (found.seqs.tolist(), found.prompt_ids.tolist(), found.removed.tolist()) == ([2], [12], [13])
            assert (found.last_seq, found.count) == (3, 3)
            assert "damaged vectors ignored" in capsys.readouterr().out

    def test_after_selects_the_vectors_after_a_number(self) -> None:
        found = changes(5, random_vectors(10)).after(8)
        assert found.seqs.tolist() == list(range(9, 15))
        assert found.vectors.shape == (6, 384)

    def test_a_single_row_becomes_changes(self) -> None:
        vector = random_vectors(1)[0]
        found = Changes.from_row(LogRow(7, 70, vector.tobytes()), 384)
        assert (found.seqs.tolist(), found.prompt_ids.tolist(), found.last_seq) == ([7], [70], 7)
        assert Changes.from_row(LogRow(8, 70, None), 384).removed.tolist() == [70]


def row(seq: int, prompt_id: int, vector: bytes | None) -> tuple[bytes, bytes, bytes | None]:
    return seq.to_bytes(8), prompt_id.to_bytes(8), vector


def sealed(first: int, count: int, *, live: int | None = None, damaged: bool = False) -> SegmentRange:
    info = SegmentInfo(first, first, first + count - 1, count, b"", None, damaged)
    return SegmentRange(first, first + count - 1, count if live is None else live, info)


def unsealed(first: int, live: int) -> SegmentRange:
    return SegmentRange(first, first + live - 1, live)


class TestPlan:
    def test_a_short_log_is_not_sealed(self) -> None:
        assert plan([unsealed(1, 999)], 1_000) == []
        assert plan([sealed(1, 5_000), unsealed(5_001, 999)], 1_000) == []

    def test_a_long_log_is_sealed(self) -> None:
        (compaction,) = plan([unsealed(1, 1_000)], 1_000)
        assert (compaction.first_seq, compaction.last_seq, compaction.live, compaction.replaces) == (
            1,
            1_000,
            1_000,
            (),
        )

    def test_segments_that_are_not_much_larger_are_merged(self) -> None:
        large, small = sealed(1, 100_000), sealed(100_001, 1_000 * MERGE_RATIO)
        (compaction,) = plan([large, small, unsealed(103_001, 1_000)], 1_000)
        assert (compaction.first_seq, compaction.last_seq) == (100_001, 104_000)
        assert compaction.replaces == (small.info,)

    def test_a_damaged_or_mostly_deleted_segment_is_rebuilt_alone(self) -> None:
        for bad in (sealed(1, 5_000, damaged=True), sealed(1, 5_000, live=3_000)):
            (compaction,) = plan([bad, sealed(5_001, 50_000), unsealed(55_001, 10)], 1_000)
            assert (compaction.first_seq, compaction.last_seq, compaction.replaces) == (1, 5_000, (bad.info,))

    def test_a_segment_with_too_few_vectors_left_is_dropped(self) -> None:
        (compaction,) = plan([sealed(1, 5_000, live=MIN_SEGMENT_VECTORS - 1)], 1_000)
        assert compaction.live < MIN_SEGMENT_VECTORS

    def test_a_growing_log_has_few_segments_and_encodes_each_vector_few_times(self) -> None:
        ranges: list[SegmentRange] = []
        encoded = total = 0
        for _ in range(500):
            ranges.append(unsealed(total + 1, 1_000))
            total += 1_000
            for compaction in plan(ranges, 1_000):
                encoded += compaction.live
                ranges = [each for each in ranges if each.first_seq < compaction.first_seq]
                ranges.append(sealed(compaction.first_seq, compaction.live))
            assert sum(each.live for each in ranges) == total
        assert len(ranges) <= 6
        assert encoded / total <= 6.5
