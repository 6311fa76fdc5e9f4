"""Splits texts into the words by which they are found: whole identifiers, and their parts.

PostgreSQL's own parser takes `/etc/hosts` for a file, `4711` in `ERR-4711` for a negative number, and letters for what
the database's locale says. Here words are the same in every database and language, without stems and stop words.

| text | words |
| --- | --- |
| `ERR_CONN_4711` | `err_conn_4711`, `err`, `conn`, `4711` |
| `NullPointerException` | `nullpointerexception`, `null`, `pointer`, `exception` |
| `user@host.example` | `user@host.example`, `user`, `host`, `example` |
| `C++`, `C#` | `c++`, `c#`, `c` |
| `東京都` (no spaces) | each character, and each two in succession |
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

from shared.providers.combining_marks import limit_marks

#: Longer words, such as encoded data, are cut off there, and end with a hash of the whole.
MAX_WORD_LENGTH = 64
_HASH_BYTES = 8

# Marks that belong to words, but are no letters: Python's \w leaves them out. Scripts that are full of them are whole
# blocks: those of India and of south-east Asia.
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u0f71-\u0fbc"
)
_WITHOUT_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_JOINT = "[-_./:@#+&~'\u2019\\\\=]{1,2}"
_SUFFIX = r"(?:\+\+|#)?"  # of C++ and C#


def _parts_and_word(letter: str, alternative: str = "") -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return patterns of a part, and of a word: parts that are joined by one or two other characters."""
    return re.compile(f"{letter}+"), re.compile(f"{letter}+(?:{_JOINT}{letter}+)*{_SUFFIX}{alternative}")


_ASCII_PART, _ASCII_WORD = _parts_and_word("[0-9A-Za-z]")  # three times as fast, and most texts are ASCII
_PART, _WORD = _parts_and_word(f"(?:[^\\W_{_WITHOUT_SPACES}]|[{_MARKS}])", f"|[{_WITHOUT_SPACES}]+")
_IS_WITHOUT_SPACES = re.compile(f"[{_WITHOUT_SPACES}]")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def words_of(text: str) -> dict[str, None]:
    """Return the words of a text in lower case, about in the order in which they first occur."""
    if text.isascii():
        part, found = _ASCII_PART, _ASCII_WORD.findall(text)
    else:
        part, found = _PART, _WORD.findall(unicodedata.normalize("NFKC", limit_marks(text)))
    words: dict[str, None] = {}
    for word in dict.fromkeys(found):
        if _IS_WITHOUT_SPACES.match(word):
            words.update(dict.fromkeys([*word, *map("".join, pairwise(word))]))
            continue
        words[_cut(word.casefold())] = None
        if not (word.isalnum() and (word.islower() or word.istitle())):  # unlike most words
            words.update((_cut(each), None) for each in _parts(word, part))
    return words


def _parts(word: str, pattern: re.Pattern[str]) -> Iterator[str]:
    for part in pattern.findall(word):
        yield part.casefold()
        pieces = _CAMEL.split(part)
        if len(pieces) > 1:
            yield from (piece.casefold() for piece in pieces)


def _cut(word: str) -> str:
    if len(word) <= MAX_WORD_LENGTH:
        return word
    return word[: MAX_WORD_LENGTH // 2] + "~" + hashlib.blake2b(word.encode(), digest_size=_HASH_BYTES).hexdigest()
