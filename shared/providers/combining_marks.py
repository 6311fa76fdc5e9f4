"""Limiting runs of combining marks before a text is normalised.

Unicode normalisation sorts the marks that follow a character. Python's implementation takes time quadratic in their
number: 100 s for 100,000 marks. No language uses more than a few, and the Stream-Safe Text Format (UAX #15, section 13)
allows thirty. Marks beyond that are dropped; all other texts stay as they are.
"""

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

MAX_MARKS = 30

#: No character from this one on is a mark (Unicode 17).
_END = 0x1F000


def limit_marks(text: str) -> str:
    """Drop combining marks beyond MAX_MARKS in a row, in time proportional to the length of the text."""
    if text.isascii() or len(text) <= MAX_MARKS:
        return text
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    are_marks = _marks()[np.minimum(codes, _END)]
    # The number of marks up to each character, less that number at the latest character that is not a mark.
    counts = np.cumsum(are_marks)
    runs: npt.NDArray[np.intp] = counts - np.maximum.accumulate(np.where(are_marks, 0, counts))
    if runs.max() <= MAX_MARKS:
        return text
    return codes[runs <= MAX_MARKS].tobytes().decode("utf-32-le", "surrogatepass")


def is_mark(character: str) -> bool:
    """Whether normalisation may move the character: it is a non-starter, or decomposes into something that begins so.

    This is more than those of a non-zero class: the halfwidth katakana voiced sound mark becomes such a one by NFKC.
    """
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) != 0


@cache
def _marks() -> npt.NDArray[np.bool_]:
    """Whether each character up to _END is a mark. Made once, in 20 ms."""
    return np.array([is_mark(chr(code)) for code in range(_END + 1)])
