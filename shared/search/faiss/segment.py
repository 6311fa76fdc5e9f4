"""A sealed segment: an index of many vectors that takes a fifth of their memory, or a ninth, to choose candidates.

Levels of product quantization (Jégou et al., 2011, "Product Quantization for Nearest Neighbor Search"), each of which
encodes what those before it left. The coarse one has 4 bits for each 2 dimensions, in the layout that FAISS scans
within CPU registers (André et al., 2015, "Cache locality is not enough"; `IndexPQFastScan`). The fine ones are only
looked at for those that the scan has chosen: two with 4 bits for each 2 dimensions, or, in a large segment, one for
each 3. So with 384 dimensions a vector takes 3 times 96 bytes, or 96 + 64, and 4 for its number.

How many are chosen depends on the data, not on a setting. Each level knows how far its estimates are off (the
standard deviation of the error for a query of unit length, from the vectors that were encoded), and whatever might
still be among the nearest is kept. Who asks compares the originals, so the answers' distances are exact.
`tests/benchmarks/search/results.txt` has the figures, and those of what was not chosen.
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

#: How many the scan gives at first; four times as many whenever that was not surely enough.
FIRST_DEPTH = 1_024
#: How many it gives at most: then it is about as fast to compare everything.
MAX_DEPTH = 32_768
#: By how many standard deviations of their error the estimates of each level may mislead. More at the fine one, because
#: the best of its estimates, from which it is counted, are mostly too good.
COARSE_MARGIN = 3.5
FINE_MARGIN = 5.0
#: FAISS rounds what it adds up in a scan, so that estimates are off even where codes are exact.
MIN_ERROR = 1e-3
#: How many dimensions a code of each fine level has, if they are so divisible. From LARGE vectors on memory counts for
#: more than fetching fewer originals.
FINE = (2, 2)
FINE_OF_LARGE = (3,)
LARGE = 300_000
#: How many vectors the codebooks are learnt from, and in how many rounds: more of either did not help.
ITERATIONS = 10
SAMPLE = 16_384
MIN_SAMPLE = 16

#: Of the payload. Another one is taken for damage, and made anew.
FORMAT = 1

Codes = npt.NDArray[np.uint8]
Estimates = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


class DamagedSegmentError(Exception):
    """A segment's payload is missing, or not what was stored."""


class Candidates(NamedTuple):
    """Vectors that may be among the nearest: their numbers, and estimates of their inner product with the query."""

    seqs: Seqs
    estimates: Estimates

    def likely(self, k: int, error: float) -> "Candidates":
        """Those that may be among the best `k`, if estimates have this error."""
        kept = _may_be_best(self.estimates, k, error)
        return Candidates(self.seqs[kept], self.estimates[kept])


class Level(NamedTuple):
    """A product quantizer's centroids and codes, and what estimates from all levels up to this one are like."""

    centroids: Vectors  #: shape (groups of dimensions, 16, dimensions of a group)
    codes: Codes  #: shape (count, bytes of a code)
    shrinkage: float  #: the mean inner product of a vector with what it is decoded to
    error: float  #: the standard deviation of an estimate, divided by the shrinkage, from the true inner product

    def table(self, query: Vectors) -> Estimates:
        """What each byte of a code adds to the inner product with the query, shape (bytes of a code, 256)."""
        nibbles = (self.centroids @ query.reshape(len(self.centroids), -1, 1))[..., 0]
        if len(nibbles) % 2:
            nibbles = np.vstack([nibbles, np.zeros((1, 16), np.float32)])
        table: Estimates = (nibbles[1::2, :, None] + nibbles[0::2, None, :]).reshape(-1, 256)
        return table

    def add_to(self, decoded: Estimates, positions: Positions, table: Estimates) -> Estimates:
        """The inner products with what is decoded up to this level. (Looking up bytes is faster than decoding them.)"""
        cells = self.codes[positions] + np.arange(0, table.size, 256, dtype=np.int32)
        refined: Estimates = decoded + table.reshape(-1)[cells].sum(axis=1)
        return refined


class Segment:
    """A read-only index over vectors of unit length. Searches may run at once, and `mark_deleted` beside them."""

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
        self._gone = np.zeros(0, bool)

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        fine = sum(level.codes.nbytes + level.centroids.nbytes for level in self._fine)
        return (
            int(self._index.codes.size() + 4 * self._index.pq.centroids.size())
            + fine
            + self._offsets.nbytes
            + self._gone.nbytes
        )

    @property
    def seqs(self) -> Seqs:
        """The numbers of its vectors."""
        return self._offsets.astype(np.int64) + self._first

    @property
    def error(self) -> float:
        """The standard deviation of the error of `candidates`' estimates."""
        return self._fine[-1].error

    def candidates(self, query: Vectors, k: int) -> Candidates:
        """Those that may be among the `k` nearest. `query` is one vector of unit length, shape (dimension,)."""
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
        """What the coarse level cannot rule out: inner products with what it decodes to, best first, and positions."""
        depth = max(FIRST_DEPTH, len(self) // 256)
        while True:
            depth = min(depth, len(self))
            (decoded,), (positions,) = self._index.search(query.reshape(1, -1), depth)
            lowest = decoded[-1]
            alive = positions >= 0  # of the worst FAISS may give nothing instead
            if len(self._gone):
                alive &= ~self._gone[positions]
            decoded, positions = decoded[alive], positions[alive]
            if depth == len(self) and len(positions) < k:
                return self._rest(decoded, positions)
            # The best by the coarse level, looked at closely, are not far from the best.
            finer = self._fine[0]
            best = finer.add_to(decoded[: 8 * k], positions[: 8 * k], table) / finer.shrinkage
            floor = _floor(best, k, COARSE_MARGIN * self._coarse_error) * self._shrinkage
            # Equal vectors share an error: so many are kept in any case.
            floor = min(floor, decoded[: 8 * k][-1]) if len(decoded) else floor
            if depth == len(self) or (depth >= MAX_DEPTH and len(positions) >= k) or lowest < floor:
                return decoded[decoded >= floor], positions[decoded >= floor]
            depth *= 4

    def _rest(self, decoded: Estimates, positions: Positions) -> tuple[Estimates, Positions]:
        """These, and whatever else is left, as if it were as good as the worst of them."""
        left = np.setdiff1d(np.flatnonzero(~self._gone) if len(self._gone) else np.arange(len(self)), positions)
        worst = np.full(len(left), decoded.min(initial=0), np.float32)
        return np.concatenate([decoded, worst]), np.concatenate([positions, left])

    def mark_deleted(self, seqs: Seqs) -> None:
        """Leaves out from now on those of the vectors with these numbers, because they were deleted."""
        offsets = seqs - self._first
        positions = np.searchsorted(self._offsets, offsets)
        ours = positions < len(self)
        ours[ours] = self._offsets[positions[ours]] == offsets[ours]
        gone = self._gone.copy() if len(self._gone) else np.zeros(len(self), bool)
        gone[positions[ours]] = True
        self._gone = gone


def build(sample: Vectors, blocks: Iterable[tuple[Seqs, Vectors]], count: int) -> bytes:
    """Makes the payload of a segment over these (about `count`) vectors, which come in order of their numbers.

    Args:
        sample: Some of the vectors, to learn the codebooks from: SAMPLE are enough, and LEAST_SAMPLE needed.
    """
    dimension = sample.shape[1]
    leftover = sample = sample @ rotation(dimension)
    quantizers, accuracy = [], []
    for wanted in (2, *(FINE if count < LARGE else FINE_OF_LARGE)):
        quantizers.append(_train(leftover, next(n for n in (wanted, 2, 1) if dimension % n == 0)))
        leftover = leftover - _decoded(quantizers[-1], leftover)
        accuracy.append(_accuracy(sample, sample - leftover))

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
        np.array([FORMAT, dimension, *(quantizer.M for quantizer in quantizers)]),
        np.array(accuracy),
        np.concatenate(seqs),
        *(faiss.vector_to_array(quantizer.centroids) for quantizer in quantizers),
        *map(np.concatenate, codes),
    ):
        np.save(file, array, allow_pickle=False)
    return file.getvalue()


def read(payload: bytes) -> Segment:
    """The segment with this payload, whose checksum was compared before.

    Raises:
        DamagedSegmentError: it has another format.
    """
    try:
        return _read(io.BytesIO(payload))
    except (ValueError, EOFError, AssertionError) as error:
        raise DamagedSegmentError("it has another format") from error


def _read(file: io.BytesIO) -> Segment:
    (found, _, *groups), accuracy, seqs = (np.load(file, allow_pickle=False) for _ in range(3))
    if found != FORMAT:
        raise ValueError(found)
    centroids = [np.load(file, allow_pickle=False).reshape(count, 16, -1) for count in groups]
    codes = [np.load(file, allow_pickle=False) for _ in groups]
    return Segment(seqs, *(Level(*each, *map(float, a)) for *each, a in zip(centroids, codes, accuracy, strict=True)))


@lru_cache(maxsize=4)
def rotation(dimension: int) -> Vectors:
    """A random orthogonal matrix, the same everywhere and for ever, shape (dimension, dimension).

    Coordinates that were turned by it are spread alike, whatever the embedder; a few large ones, as the hashing
    embedder gives, would else be encoded badly (as in RaBitQ, Gao and Long, 2024). NumPy promises never to change this
    generator.
    """
    matrix, triangle = np.linalg.qr(np.random.RandomState(dimension).standard_normal((dimension, dimension)))
    turned: Vectors = (matrix * np.sign(np.diag(triangle))).astype(np.float32)
    return turned


def _train(sample: Vectors, dimensions_a_code: int) -> Any:
    """Learns 16 centroids for each group of dimensions."""
    quantizer = faiss.ProductQuantizer(sample.shape[1], sample.shape[1] // dimensions_a_code, 4)
    quantizer.cp.min_points_per_centroid = 1
    quantizer.cp.niter = ITERATIONS
    quantizer.train(sample)
    return quantizer


def _decoded(quantizer: Any, vectors: Vectors) -> Vectors:
    decoded: Vectors = quantizer.decode(quantizer.compute_codes(vectors))
    return decoded


def _accuracy(sample: Vectors, decoded: Vectors) -> tuple[float, float]:
    """The shrinkage and the error (see `Level`), for queries like these vectors."""
    shrinkage = float(np.einsum("ij,ij->i", sample, decoded).mean())
    return shrinkage, max(MIN_ERROR, float(np.std(sample[:256] @ (sample - decoded / shrinkage)[-4_096:].T)))


def _may_be_best(estimates: Estimates, k: int, error: float) -> npt.NDArray[np.bool_]:
    """Which may be of the best `k`, if estimates have this error."""
    likely: npt.NDArray[np.bool_] = estimates >= _floor(estimates, k, FINE_MARGIN * error)
    return likely


def _floor(estimates: Estimates, k: int, margin: float) -> float:
    """So much less than the best `k`."""
    if len(estimates) <= k:
        return -np.inf
    return float(np.partition(estimates, -k)[-k]) - margin
