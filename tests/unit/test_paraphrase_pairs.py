"""The labelled pairs that embedders are measured with, and the measure itself."""

from collections import Counter

import pytest

from tests.benchmarks.embedders import LABELS, PAIRS, auc, read_pairs


def test_each_line_has_a_known_label_and_two_texts() -> None:
    for number, line in enumerate(PAIRS.read_text(encoding="utf-8").splitlines()[1:], start=2):
        label, *texts = line.split("\t")
        assert label in LABELS, number
        assert len(texts) == 2, number
        assert all(text and text == text.strip() for text in texts), number


def test_each_label_has_enough_pairs() -> None:
    counts = Counter(pair.label for pair in read_pairs())
    assert counts.total() >= 300
    assert counts["paraphrase"] >= 110
    assert counts["near-miss"] >= 100
    assert counts["unrelated"] >= 100


def test_no_text_occurs_twice() -> None:
    """So no pair has identical texts, and each search has one right answer."""
    counts = Counter(text.casefold() for pair in read_pairs() for text in (pair.first, pair.second))
    assert [text for text, count in counts.items() if count > 1] == []


@pytest.mark.parametrize(
    ("near", "far", "expected"),
    [
        ([0.1, 0.2], [0.3, 0.4, 0.5], 1.0),
        ([0.3, 0.4, 0.5], [0.1, 0.2], 0.0),
        ([1.0, 1.0], [1.0, 1.0, 1.0], 0.5),
        ([1, 3], [2, 4], 0.75),
        ([1, 2], [2, 3], 0.875),
    ],
    ids=["perfect", "reversed", "all equal", "one of four wrong", "one of four tied"],
)
def test_auc_is_the_share_of_correctly_ordered_pairs(near: list[float], far: list[float], expected: float) -> None:
    assert auc(near, far) == expected
