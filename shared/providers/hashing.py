"""Embeddings without a model: feature hashing of words and of their character n-grams.

This is the signed hashing trick (Weinberger et al., 2009, "Feature Hashing for Large Scale Multitask Learning"): each
feature adds +weight or -weight to buckets that SHA-256 chooses. So texts that share features are near, and unrelated
texts are nearly orthogonal. n-grams make it tolerate endings and misspellings (as in fastText, Bojanowski et al.,
2017).
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from shared.providers import Vectors
from shared.providers.combining_marks import limit_marks
from shared.settings import Settings

DIMENSION = 384

_WORD = re.compile(r"\w+")
_BUCKETS_PER_FEATURE = 4
_NGRAM_LENGTHS = (3, 4)
_MAX_WORD_LENGTH = 64
_MAX_CACHED_WORD_LENGTH = 16
_NGRAM_SHARE = 0.5  # the part of a word's weight that its n-grams share

# Words that say little about a text's subject have this weight; all others have 1.
_FUNCTION_WORD_WEIGHT = 0.15
_FUNCTION_WORDS = frozenset(
    """
    a about am an and any are as at be been but by can could did do does for from get give had has have
    help how i if in into is it its just made make me might must my no not of on or our please shall
    should so some tell than that the their them then there these they this those to us was we were what
    when where which who whom whose why will with would you your
    """.split()  # noqa: SIM905
)

_Sparse = tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]


class HashingEmbedder:
    """384-dimensional vectors. A text has the same vector in every process and on every machine."""

    name = "hashing-1"
    dimension = DIMENSION
    is_remote = False

    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.array([_embed(text) for text in texts], dtype=np.float32).reshape(len(texts), DIMENSION)


def _embed(text: str) -> npt.NDArray[np.float64]:
    normal = unicodedata.normalize("NFKC", limit_marks(text)).casefold()
    words = _WORD.findall(normal) or [normal.strip()]
    parts = [_features(word[:_MAX_WORD_LENGTH]) for word in words]
    buckets = np.concatenate([part[0] for part in parts])
    weights = np.concatenate([part[1] for part in parts])
    vector = np.zeros(DIMENSION) + np.bincount(buckets, weights, minlength=DIMENSION)
    length = float(np.sqrt(np.dot(vector, vector)))
    if length < 1e-9:  # all features cancelled each other out
        vector[int.from_bytes(hashlib.sha256(normal.encode()).digest()[:8]) % DIMENSION] = 1.0
        return vector
    return vector / length


def _features(word: str) -> _Sparse:
    # Long words rarely occur again and take the most memory. Without them an entry takes at most about 2 KB.
    return _cached_features(word) if len(word) <= _MAX_CACHED_WORD_LENGTH else _word_features(word)


def _word_features(word: str) -> _Sparse:
    """Return the buckets that a word adds to, and the signed weights for them."""
    weight = _FUNCTION_WORD_WEIGHT if word in _FUNCTION_WORDS else 1.0
    ngrams = list(_ngrams(word))
    features = [(f"w:{word}", weight)]
    features += [(f"n:{ngram}", weight * _NGRAM_SHARE / len(ngrams) ** 0.5) for ngram in ngrams]
    buckets, weights = [], []
    for feature, feature_weight in features:
        digest = hashlib.sha256(feature.encode()).digest()
        for i in range(_BUCKETS_PER_FEATURE):
            number = int.from_bytes(digest[4 * i : 4 * i + 4])
            buckets.append((number >> 1) % DIMENSION)
            weights.append(feature_weight if number & 1 else -feature_weight)
    return np.array(buckets, dtype=np.intp), np.array(weights)


_cached_features = lru_cache(maxsize=8_192)(_word_features)


def _ngrams(word: str) -> Iterator[str]:
    padded = f"<{word}>"
    for length in _NGRAM_LENGTHS:
        for start in range(len(padded) - length + 1):
            yield padded[start : start + length]


def make(_: Settings) -> HashingEmbedder:
    return HashingEmbedder()
