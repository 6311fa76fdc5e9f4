"""A sealed segment: an index of many vectors in a fifth to a ninth of their memory, which proposes candidates.

It has levels of product quantization (Jégou et al., 2011, "Product Quantization for Nearest Neighbor Search"); each
level encodes the residual of the levels before it. The coarse level has 4 bits per 2 dimensions, in the layout that
FAISS scans within CPU registers (André et al., 2015, "Cache locality is not enough"; `IndexPQFastScan`). The fine
levels are read only for the vectors that the scan selects: two levels with 4 bits per 2 dimensions, or, in a large
segment, one with 4 bits per 3. So with 384 dimensions a vector takes 3 times 96 bytes, or 96 + 64, and 4 for its
number.

The number of candidates depends on the data, not on a setting. Each level knows the error of its estimates (the
standard deviation for a query of unit length, measured on the encoded vectors), and everything that might still be
among the nearest is kept. The caller compares the originals, so the distances in answers are exact.
`tests/benchmarks/search/results.txt` has the figures, also those of the alternatives.
"""

import io
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from shared.providers import Vectors
from shared.search.vector_log import Seqs

#: How many vectors the scan returns at first; it is repeated with four times as many until they are surely enough.
FIRST_DEPTH = 1_024
#: How many it returns at most; beyond that, comparing everything is about as fast.
MAX_DEPTH = 32_768
#: How many standard deviations of its error an estimate of each level may be wrong. The fine levels have a larger
#: margin because it is counted from their best estimates, which are mostly too high.
COARSE_MARGIN = 3.5
FINE_MARGIN = 5.0
#: FAISS rounds the sums of a scan, so that estimates have an error even where codes are exact.
MIN_ERROR = 1e-3
#: Dimensions per code in each fine level, if the dimension is divisible by them. In segments of LARGE_FROM vectors or
#: more, memory counts for more than fetching fewer originals.
FINE_WIDTHS = (2, 2)
FINE_WIDTHS_OF_LARGE = (3,)
LARGE_FROM = 300_000
#: The codebooks are trained on a sample of this size, in this many iterations: more of either did not help.
TRAINING_ITERATIONS = 10
MAX_SAMPLE = 16_384
MIN_SAMPLE = 16

#: The payload's format. A segment of another format counts as damaged and is rebuilt.
FORMAT_VERSION = 1

Codes = npt.NDArray[np.uint8]
Estimates = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


class DamagedSegmentError(Exception):
    """A segment's payload is missing or was changed."""


class Candidates(NamedTuple):
    """Vectors that may be among the nearest: their numbers, and estimates of their inner products with the query."""

    seqs: Seqs
    estimates: Estimates

    def likely(self, k: int, error: float) -> "Candidates":
        """Select those that may be among the best `k`, if estimates have this error."""
        kept = _may_be_best(self.estimates, k, error)
        return Candidates(self.seqs[kept], self.estimates[kept])


class Level(NamedTuple):
    """A product quantizer's centroids and codes, and the accuracy of estimates from all levels up to this one."""

    centroids: Vectors  #: shape (groups of dimensions, 16, dimensions of a group)
    codes: Codes  #: shape (count, bytes of a code)
    shrinkage: float  #: the mean inner product of a vector and its decoded form
    error: float  #: the standard deviation of an estimate, divided by the shrinkage, from the true inner product

    def table(self, query: Vectors) -> Estimates:
        """Return what each byte of a code adds to the inner product with the query, shape (bytes of a code, 256)."""
        nibbles = (self.centroids @ query.reshape(len(self.centroids), -1, 1))[..., 0]
        if len(nibbles) % 2:
            nibbles = np.vstack([nibbles, np.zeros((1, 16), np.float32)])
        table: Estimates = (nibbles[1::2, :, None] + nibbles[0::2, None, :]).reshape(-1, 256)
        return table

    def add_to(self, decoded: Estimates, positions: Positions, table: Estimates) -> Estimates:
        """Add this level's part to inner products with decoded vectors. (Looking up bytes is faster than decoding.)"""
        cells = self.codes[positions] + np.arange(0, table.size, 256, dtype=np.int32)
        refined: Estimates = decoded + table.reshape(-1)[cells].sum(axis=1)
        return refined


class Segment:
    """A read-only index of vectors of unit length. Searches may run concurrently with each other and `mark_deleted`."""

    def __init__(self, seqs: Seqs, coarse: Level, *fine: Level) -> None:
        self._first = int(seqs[0])
        self._offsets = (seqs - self._first).astype(np.uint32 if seqs[-1] - seqs[0] < 2**32 else np.int64)
        self._shrinkage, self._coarse_error = coarse.shrinkage, coarse.error
        self._fine = fine
        groups, _, width = coarse.centroids.shape
        plain = faiss.IndexPQ(groups * width, groups, 4, faiss.METRIC_INNER_PRODUCT)
        faiss.copy_array_to_vector(coarse.centroids.reshape(-1), plain.pq.centroids)
        plain.is_trained = True
        plain.ntotal = len(seqs)
        faiss.copy_array_to_vector(coarse.codes.reshape(-1), plain.codes)
        self._index: Any = faiss.IndexPQFastScan(plain)  # type: ignore[arg-type]
        self._deleted = np.zeros(0, bool)

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def nbytes(self) -> int:
        """Its memory, in bytes."""
        fine = sum(level.codes.nbytes + level.centroids.nbytes for level in self._fine)
        return (
            int(self._index.codes.size() + 4 * self._index.pq.centroids.size())
            + fine
            + self._offsets.nbytes
            + self._deleted.nbytes
        )

    @property
    def seqs(self) -> Seqs:
        """Its vectors' numbers."""
        return self._offsets.astype(np.int64) + self._first

    @property
    def error(self) -> float:
        """The standard deviation of the error of the estimates that `candidates` returns."""
        return self._fine[-1].error

    def candidates(self, query: Vectors, k: int) -> Candidates:
        """Return the vectors that may be among the `k` nearest.

        Args:
            query: One vector of unit length, shape (dimension,).
        """
        query = query @ rotation(len(query))
        tables = [level.table(query) for level in self._fine]
        decoded, positions = self._scan(query, k, tables[0])
        for level, table in zip(self._fine, tables, strict=True):
            decoded = level.add_to(decoded, positions, table)
            estimates = decoded / level.shrinkage
            likely = _may_be_best(estimates, k, level.error)
            decoded, positions, estimates = decoded[likely], positions[likely], estimates[likely]
        return Candidates(self._offsets[positions].astype(np.int64) + self._first, estimates)

    def _scan(self, query: Vectors, k: int, table: Estimates) -> tuple[Estimates, Positions]:
        """Return inner products and positions of all that the coarse level cannot rule out, best first."""
        depth = max(FIRST_DEPTH, len(self) // 256)
        while True:
            depth = min(depth, len(self))
            (decoded,), (positions,) = self._index.search(query.reshape(1, -1), depth)
            lowest = decoded[-1]
            alive = positions >= 0  # FAISS may leave the worst positions empty
            if len(self._deleted):
                alive &= ~self._deleted[positions]
            decoded, positions = decoded[alive], positions[alive]
            if depth == len(self) and len(positions) < k:
                return self._with_all_others(decoded, positions)
            # The best by the coarse level, estimated more finely, are close to the true best.
            finer = self._fine[0]
            best = finer.add_to(decoded[: 8 * k], positions[: 8 * k], table) / finer.shrinkage
            floor = _floor(best, k, COARSE_MARGIN * self._coarse_error) * self._shrinkage
            # Equal vectors share an error: 8 * k are kept in any case.
            floor = min(floor, decoded[: 8 * k][-1]) if len(decoded) else floor
            if depth == len(self) or (depth >= MAX_DEPTH and len(positions) >= k) or lowest < floor:
                return decoded[decoded >= floor], positions[decoded >= floor]
            depth *= 4

    def _with_all_others(self, decoded: Estimates, positions: Positions) -> tuple[Estimates, Positions]:
        """Add all other vectors, with the estimate of the worst of these."""
        left = np.setdiff1d(np.flatnonzero(~self._deleted) if len(self._deleted) else np.arange(len(self)), positions)
        worst = np.full(len(left), decoded.min(initial=0), np.float32)
        return np.concatenate([decoded, worst]), np.concatenate([positions, left])

    def mark_deleted(self, seqs: Seqs) -> None:
        """Exclude the vectors with these numbers from further searches. Numbers it does not have are ignored."""
        offsets = seqs - self._first
        positions = np.searchsorted(self._offsets, offsets)
        known = positions < len(self)
        known[known] = self._offsets[positions[known]] == offsets[known]
        deleted = self._deleted.copy() if len(self._deleted) else np.zeros(len(self), bool)
        deleted[positions[known]] = True
        self._deleted = deleted  # replaced, never changed: searches read it without a lock


def build(sample: Vectors, blocks: Iterable[tuple[Seqs, Vectors]], count: int) -> bytes:
    """Build the payload of a segment.

    Args:
        sample: Some of the vectors, to train the codebooks on: between MIN_SAMPLE and MAX_SAMPLE.
        blocks: All vectors and their numbers, in order of the numbers.
        count: The approximate number of vectors.
    """
    dimension = sample.shape[1]
    residual = sample = sample @ rotation(dimension)
    quantizers, accuracy = [], []
    for wanted in (2, *(FINE_WIDTHS if count < LARGE_FROM else FINE_WIDTHS_OF_LARGE)):
        quantizers.append(_train(residual, next(n for n in (wanted, 2, 1) if dimension % n == 0)))
        residual = residual - _decoded(quantizers[-1], residual)
        accuracy.append(_accuracy(sample, sample - residual))

    seqs: list[Seqs] = []
    codes: list[list[Codes]] = [[] for _ in quantizers]
    for numbers, vectors in blocks:
        seqs.append(numbers)
        vectors = vectors @ rotation(dimension)
        for quantizer, gathered in zip(quantizers, codes, strict=True):
            gathered.append(quantizer.compute_codes(vectors))
            vectors = vectors - quantizer.decode(gathered[-1])
    file = io.BytesIO()
    for array in (
        np.array([FORMAT_VERSION, dimension, *(quantizer.M for quantizer in quantizers)]),
        np.array(accuracy),
        np.concatenate(seqs),
        *(faiss.vector_to_array(quantizer.centroids) for quantizer in quantizers),
        *map(np.concatenate, codes),
    ):
        np.save(file, array, allow_pickle=False)
    return file.getvalue()


def decode(payload: bytes) -> Segment:
    """Decode a payload, whose checksum the caller has verified.

    Raises:
        DamagedSegmentError: it has another format.
    """
    try:
        return _decode(io.BytesIO(payload))
    except (ValueError, EOFError, AssertionError) as error:
        raise DamagedSegmentError("it has another format") from error


def _decode(file: io.BytesIO) -> Segment:
    (found, _, *groups), accuracy, seqs = (np.load(file, allow_pickle=False) for _ in range(3))
    if found != FORMAT_VERSION:
        raise ValueError(found)
    centroids = [np.load(file, allow_pickle=False).reshape(count, 16, -1) for count in groups]
    codes = [np.load(file, allow_pickle=False) for _ in groups]
    return Segment(seqs, *(Level(*each, *map(float, a)) for *each, a in zip(centroids, codes, accuracy, strict=True)))


@lru_cache(maxsize=4)
def rotation(dimension: int) -> Vectors:
    """Return a random orthogonal matrix, the same on every machine and in every version, shape (dimension, dimension).

    It spreads the coordinates evenly, whatever the embedder; without it a few large coordinates, as in the hashing
    embedder's vectors, would be encoded badly (as in RaBitQ, Gao and Long, 2024). NumPy promises never to change this
    generator.
    """
    matrix, triangle = np.linalg.qr(np.random.RandomState(dimension).standard_normal((dimension, dimension)))
    rotated: Vectors = (matrix * np.sign(np.diag(triangle))).astype(np.float32)
    return rotated


def _train(sample: Vectors, width: int) -> Any:
    """Train 16 centroids for each group of `width` dimensions."""
    quantizer = faiss.ProductQuantizer(sample.shape[1], sample.shape[1] // width, 4)
    quantizer.cp.min_points_per_centroid = 1
    quantizer.cp.niter = TRAINING_ITERATIONS
    quantizer.train(sample)
    return quantizer


def _decoded(quantizer: Any, vectors: Vectors) -> Vectors:
    decoded: Vectors = quantizer.decode(quantizer.compute_codes(vectors))
    return decoded


def _accuracy(sample: Vectors, decoded: Vectors) -> tuple[float, float]:
    """Return the shrinkage and the error (see `Level`), for queries like these vectors."""
    shrinkage = float(np.einsum("ij,ij->i", sample, decoded).mean())
    return shrinkage, max(MIN_ERROR, float(np.std(sample[:256] @ (sample - decoded / shrinkage)[-4_096:].T)))


def _may_be_best(estimates: Estimates, k: int, error: float) -> npt.NDArray[np.bool_]:
    """Return a mask of those that may be among the best `k`, if estimates have this error."""
    likely: npt.NDArray[np.bool_] = estimates >= _floor(estimates, k, FINE_MARGIN * error)
    return likely


def _floor(estimates: Estimates, k: int, margin: float) -> float:
    """Return the `k`-th best estimate less the margin."""
    if len(estimates) <= k:
        return -np.inf
    return float(np.partition(estimates, -k)[-k]) - margin
