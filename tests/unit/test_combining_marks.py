"""Runs of combining marks are limited before a text is normalised, and no other text changes."""

import sys
import unicodedata

import pytest

from shared.providers.combining_marks import _END, MAX_MARKS, is_mark, limit_marks

LANGUAGES = [
    "The tides of the ocean",
    "Die Gezeiten der Größe",
    "समुद्र के ज्वार भाटा क्यों आते हैं",
    "น้ำขึ้นน้ำลงเกิดจากอะไร",
    "מַה גּוֹרֵם לַגֵּאוּת",
    "海洋的潮汐 한국어 ガギグ ｶﾞｷﾞ",
    unicodedata.normalize("NFD", "thủy triều của đại dương, ǖ Ệ"),
    "👨‍👩‍👧‍👦🏽 e\u0301" + "\u0300" * (MAX_MARKS - 1),
]


@pytest.mark.parametrize("text", LANGUAGES)
def test_a_text_of_a_language_stays_as_it_is(text: str) -> None:
    assert limit_marks(text * 50) == text * 50


def test_marks_beyond_the_limit_are_dropped_and_the_rest_of_the_text_is_kept() -> None:
    marks = "\u0345\u0334" * 40
    assert limit_marks(f"a{marks}b é{marks}") == f"a{marks[:MAX_MARKS]}b é{marks[:MAX_MARKS]}"


def test_a_lone_surrogate_is_kept() -> None:
    assert limit_marks("\ud800" * 40) == "\ud800" * 40


def test_characters_that_become_marks_by_normalisation_count_as_marks() -> None:
    """The halfwidth voiced sound mark is a letter until NFKC makes it a mark of another class than U+0345."""
    assert len(limit_marks("a" + "\u0345\uff9e" * 100)) == 1 + MAX_MARKS


def test_no_character_beyond_the_table_is_a_mark() -> None:
    assert not any(is_mark(chr(code)) for code in range(_END, sys.maxunicode + 1) if not 0xE0000 <= code < 0xF0000)
    assert not any(is_mark(chr(code)) for code in range(0xE0000, 0xE0200))
