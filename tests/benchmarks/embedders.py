"""Quality of embedders at finding paraphrases: `make benchmark NAME=embedders`.

The pairs in pairs.tsv were written by hand, before any embedder was measured with them. A near-miss shares words or the
subject, but asks something else. Half of the paraphrases share few words or none.
"""

import hashlib
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import psutil

from shared.providers import Embedder, Vectors
from shared.providers.hashing import HashingEmbedder
from shared.providers.minilm import MAX_TOKENS, MiniLMEmbedder
from tests.benchmarks import published

REPETITIONS = 20
PAIRS = Path(__file__).with_name("pairs.tsv")
LABELS = ("paraphrase", "near-miss", "unrelated")
#: What EMBEDDER names them.
NAMES: dict[type[Embedder], str] = {HashingEmbedder: "hashing", MiniLMEmbedder: "minilm"}

Distances = npt.NDArray[np.float64]


class Pair(NamedTuple):
    label: str
    first: str
    second: str


class WholeTextHash:
    """The baseline: each number is a hash of the whole text and its index, so that only identical texts are near."""

    name = "whole-text-hash"
    dimension = 384
    is_remote = False

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.array([[self._number(f"{text}_{i}") for i in range(self.dimension)] for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    @staticmethod
    def _number(text: str) -> float:
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32 * 2 - 1


def main() -> None:
    arguments = published.parser(__doc__).parse_args()
    minilm, costs = _load_minilm()
    embedders: list[Embedder] = [WholeTextHash(), HashingEmbedder(), minilm]
    recall = {}
    pairs = read_pairs()
    counts = ", ".join(f"{sum(pair.label == label for pair in pairs)} {label}" for label in LABELS)
    print(f"pairs: {counts}; distances are squared L2")
    print(f"{'':20}{'recall':>18}{'AUC of paraphrase against':>28}{'mean distance':>36}")
    print(f"{'embedder':20}{'@1':>9}{'@5':>9}{'near-miss':>14}{'unrelated':>14}", *map("{:>11}".format, LABELS))
    for embedder in embedders:
        by_label = distances(embedder, pairs)
        paraphrase, near_miss, unrelated = (by_label[label] for label in LABELS)
        ranks = paraphrase_ranks(embedder, pairs)
        recall[NAMES.get(type(embedder), embedder.name)] = round(float((ranks <= 1).mean()), 3)
        print(
            f"{embedder.name:20}{(ranks <= 1).mean():9.3f}{(ranks <= 5).mean():9.3f}"
            f"{auc(paraphrase, near_miss):14.3f}{auc(paraphrase, unrelated):14.3f}"
            f"{paraphrase.mean():12.3f}{near_miss.mean():12.3f}{unrelated.mean():12.3f}"
        )
    print(f"minilm: {costs}")
    if arguments.write:
        texts = sum(1 if pair.label == "paraphrase" else 2 for pair in pairs)
        published.write("embedders", {"recall at 1": recall, "texts": texts, "minilm": costs})


def _load_minilm() -> tuple[MiniLMEmbedder, dict[str, float]]:
    """Return the embedder, the MB that it takes, and the median ms of a short text and of one of 256 tokens."""
    before = psutil.Process().memory_info().rss
    embedder = MiniLMEmbedder()

    def median_ms(text: str) -> float:
        taken = []
        for _ in range(REPETITIONS):
            started = time.perf_counter()
            embedder.embed([text])
            taken.append(1_000 * (time.perf_counter() - started))
        return round(statistics.median(taken), 1)

    times = {"short_ms": median_ms("How high is the tide today?"), "long_ms": median_ms("tide " * MAX_TOKENS)}
    return embedder, times | {"memory_mb": round((psutil.Process().memory_info().rss - before) / 1e6)}


def read_pairs() -> list[Pair]:
    """Read the pairs. The file has no quoting: tabs separate, and quotation marks belong to the texts."""
    header, *lines = PAIRS.read_text(encoding="utf-8").splitlines()
    if tuple(header.split("\t")) != Pair._fields:
        raise ValueError(f"{PAIRS} must start with the header {' '.join(Pair._fields)}.")
    return [Pair(*line.split("\t")) for line in lines]


def distances(embedder: Embedder, pairs: list[Pair]) -> dict[str, Distances]:
    """Return the squared L2 distances between the two texts of each pair, by label."""
    found = {}
    for label in LABELS:
        first, second = (
            embedder.embed([pair[side] for pair in pairs if pair.label == label]).astype(np.float64) for side in (1, 2)
        )
        found[label] = ((first - second) ** 2).sum(axis=1)
    return found


def paraphrase_ranks(embedder: Embedder, pairs: list[Pair]) -> npt.NDArray[np.intp]:
    """Return the rank of each paraphrase's second text in a search for its first: 1 is the nearest. Ties lower it.

    The corpus holds the second texts of all paraphrases, and both texts of all other pairs.
    """
    paraphrases = [pair for pair in pairs if pair.label == "paraphrase"]
    others = [text for pair in pairs if pair.label != "paraphrase" for text in (pair.first, pair.second)]
    queries = embedder.embed([pair.first for pair in paraphrases]).astype(np.float64)
    corpus = embedder.embed([pair.second for pair in paraphrases] + others).astype(np.float64)
    ranks = []
    for i, query in enumerate(queries):
        to_query = ((corpus - query) ** 2).sum(axis=1)
        ranks.append(np.count_nonzero(to_query <= to_query[i]))
    return np.array(ranks)


def auc(near: npt.ArrayLike, far: npt.ArrayLike) -> float:
    """Return the area under the ROC curve: the probability that a `near` is less than a `far`; ties count half.

    It is the U statistic (Mann and Whitney, 1947) over the number of comparisons (Hanley and McNeil, 1982, "The
    meaning and use of the area under a receiver operating characteristic (ROC) curve").
    """
    left, right = np.asarray(near)[:, None], np.asarray(far)[None, :]
    return float(np.mean((left < right) + 0.5 * (left == right)))


if __name__ == "__main__":
    main()
