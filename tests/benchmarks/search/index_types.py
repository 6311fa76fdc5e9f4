"""Compares index types that a segment could use: `python -m tests.benchmarks.search --index-types`.

All index one user's vectors, without a database. Those that compress propose candidates, whose originals are then
compared; here the originals are in memory.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from shared.providers import Vectors
from shared.search.faiss import segment
from tests.benchmarks.search import data
from tests.benchmarks.search.data import DIMENSION, Data, K
from tests.benchmarks.search.figures import Turns, in_turns

#: How many candidates are compared exactly.
SQ8_CANDIDATES, RABITQ_CANDIDATES = 20, 500
#: Numbers of lists to search, tried in this order until the recall is high enough.
PROBES = (8, 16, 32, 64, 128, 256, 512, 1_024, 2_048)
MIN_RECALL = 0.99
#: With more vectors neither graphs nor lists are built: both take many minutes.
MAX_TRAINING_VECTORS = 100_000

Positions = npt.NDArray[np.int64]
Search = Callable[[Vectors], Positions]
#: Returns the positions of the K nearest to a query, shape (384,); and the bytes per vector.
Built = tuple[Search, float]


def measure(kind: str, size: int, turns: Turns) -> dict[str, dict[str, Any]]:
    """Measure each index type with `size` vectors of a kind."""
    own = data.make(kind, size, seed=9)
    searches: dict[str, Search] = {}
    figures: dict[str, dict[str, Any]] = {}
    for name, build in _builders(own).items():
        if name.startswith(("HNSW", "IVF")) and size > MAX_TRAINING_VECTORS:
            figures[name] = {"skipped": f"building it for more than {MAX_TRAINING_VECTORS:,} vectors takes too long"}
            continue
        started = time.perf_counter()
        search, nbytes = build()
        figures[name] = {"build_s": round(time.perf_counter() - started, 2), "bytes": round(nbytes, 1)}
        searches[name] = search
    recalls: dict[str, list[float]] = {name: [] for name in searches}

    def check(name: str, number: int, found: Positions) -> None:
        recalls[name].append(own.recall(number % data.QUERIES, found[found >= 0].tolist()))

    calls = {name: partial(_numbered, search, own) for name, search in searches.items()}
    for name, taken in in_turns(calls, turns, on_result=check).items():
        figures[name] |= {**taken.figures(), "recall": round(float(np.mean(recalls[name])), 4)}
    return figures


def _numbered(search: Search, own: Data, number: int) -> Positions:
    return search(own.queries[number % data.QUERIES])


def _builders(own: Data) -> dict[str, Callable[[], Built]]:
    graph: dict[str, Any] = {}  # built once, searched in two ways
    return {
        "ours": partial(_ours, own.vectors),
        "flat float32": partial(_plain, own.vectors, lambda: faiss.IndexFlatL2(DIMENSION), 4 * DIMENSION),
        "flat fp16": partial(_plain, own.vectors, _scalar(faiss.ScalarQuantizer.QT_fp16), 2 * DIMENSION),
        f"SQ8, {SQ8_CANDIDATES} compared": partial(
            _refined, own.vectors, _scalar(faiss.ScalarQuantizer.QT_8bit), DIMENSION, SQ8_CANDIDATES
        ),
        f"RaBitQ, {RABITQ_CANDIDATES} compared": partial(_rabitq, own.vectors),
        "IVF flat": partial(_lists, own),
        "HNSW 16, ef 128": partial(_graph, own.vectors, graph, 128),
        "HNSW 16, ef 512": partial(_graph, own.vectors, graph, 512),
    }


def _scalar(kind: int) -> Callable[[], Any]:
    return lambda: faiss.IndexScalarQuantizer(DIMENSION, kind, faiss.METRIC_L2)


def _filled(vectors: Vectors, index: Any) -> Any:
    index.train(vectors[: segment.MAX_SAMPLE])
    index.add(vectors)
    return index


def _first(index: Any, count: int, **options: Any) -> Search:
    return lambda query: index.search(query.reshape(1, -1), count, **options)[1][0]


def _compared(vectors: Vectors, candidates: Search) -> Search:
    """Return a search that compares the candidates' originals."""

    def search(query: Vectors) -> Positions:
        positions = candidates(query)
        distances = np.square(vectors[positions] - query).sum(axis=1)
        return positions[np.argsort(distances)[:K]]

    return search


def _plain(vectors: Vectors, make: Callable[[], Any], nbytes: float) -> Built:
    return _first(_filled(vectors, make()), K), nbytes


def _refined(vectors: Vectors, make: Callable[[], Any], nbytes: float, candidates: int) -> Built:
    index = _filled(vectors, make())
    return _compared(vectors, _first(index, min(candidates, len(vectors)))), nbytes


def _rabitq(vectors: Vectors) -> Built:
    """Build an index with one bit per dimension, in the layout for fast scans, after a random rotation."""
    inner = faiss.IndexRaBitQFastScan(DIMENSION, faiss.METRIC_L2)
    index = faiss.IndexPreTransform(faiss.RandomRotationMatrix(DIMENSION, DIMENSION), inner)
    _filled(vectors, index)
    search = _first(index, min(RABITQ_CANDIDATES, len(vectors)))
    return _compared(vectors, lambda query: _present(search(query))), inner.codes.size() / len(vectors)


def _present(positions: Positions) -> Positions:
    return positions[positions >= 0]


def _lists(own: Data) -> Built:
    """Build 4 √n lists, and search as many of them as the recall needs."""
    count = len(own.vectors)
    lists = max(1, min(int(4 * count**0.5), count // 39))  # FAISS wants at least 39 training vectors per list
    quantizer = faiss.IndexFlatL2(DIMENSION)
    index = faiss.IndexIVFFlat(quantizer, DIMENSION, lists)
    index.train(own.vectors[: 50 * lists])
    index.add(own.vectors)
    for probes in PROBES:
        index.nprobe = min(probes, lists)
        found = index.search(own.queries, K)[1]
        recall = np.mean([own.recall(i, row[row >= 0].tolist()) for i, row in enumerate(found)])
        if recall >= MIN_RECALL or index.nprobe == lists:
            break
    search = _first(index, K)
    search.quantizer = quantizer  # type: ignore[attr-defined]  # kept alive
    return search, 4 * DIMENSION + 8


def _graph(vectors: Vectors, built: dict[str, Any], ef: int) -> Built:
    if "index" not in built:
        faiss.omp_set_num_threads(2)
        built["index"] = faiss.IndexHNSWFlat(DIMENSION, 16)
        built["index"].add(vectors)
        faiss.omp_set_num_threads(1)
    parameters = faiss.SearchParametersHNSW(efSearch=ef)
    return _first(built["index"], K, params=parameters), 4 * DIMENSION + 4 * (2 * 16 + 2)


def _ours(vectors: Vectors) -> Built:
    """Search like `Replica`, with the originals in memory instead of Postgres."""
    one_in = max(1, len(vectors) // segment.MAX_SAMPLE)
    blocks = ((np.arange(i, min(i + 500, len(vectors))), vectors[i : i + 500]) for i in range(0, len(vectors), 500))
    ours = segment.decode(segment.build(vectors[::one_in], blocks, len(vectors)))
    return _compared(vectors, lambda query: ours.candidates(query, K).seqs), ours.nbytes / len(vectors)
