"""How texts are split into words, and how rankings are fused."""

import time

import pytest

from shared.search.prompt_search import fuse
from shared.search.words.lexemes import MAX_QUERY_WORDS, MAX_WORDS_BYTES, lexemes, queries
from shared.search.words.tokens import MAX_WORD_LENGTH, words_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ERR_CONN_4711", ["err_conn_4711", "err", "conn", "4711"]),
        ("Order ORD-2024-00317.", ["order", "ord-2024-00317", "ord", "2024", "00317"]),
        ("user@host.example", ["user@host.example", "user", "host", "example"]),
        ("see /etc/hosts, please", ["see", "etc/hosts", "etc", "hosts", "please"]),
        ("Release v1.2.3!", ["release", "v1.2.3", "v1", "2", "3"]),
        ("NullPointerException", ["nullpointerexception", "null", "pointer", "exception"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("snake_case and kebab-case", ["snake_case", "snake", "case", "and", "kebab-case", "kebab"]),
        ("std::vector", ["std::vector", "std", "vector"]),
        ("C++, C# or C", ["c++", "c", "c#", "or"]),
        ("a I 7", ["a", "i", "7"]),
        ("Straße ÜBER ﬁne", ["strasse", "über", "fine"]),
        ("e\u0301te\u0301", ["\u00e9t\u00e9"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("Привет, мир", ["привет", "мир"]),
        ("東京都", ["東", "京", "都", "東京", "京都"]),
        ("the the The", ["the"]),
        ("!!! … -- _", []),
        ("", []),
    ],
)
def test_words_are_identifiers_as_a_whole_and_their_parts(text: str, expected: list[str]) -> None:
    assert list(words_of(text)) == expected


def test_a_very_long_word_is_cut_off_and_still_differs_from_another_one() -> None:
    first, second = (next(iter(words_of("a" * 5_000 + end))) for end in "xy")
    assert first != second
    assert max(len(first), len(second)) <= MAX_WORD_LENGTH


@pytest.mark.parametrize(
    "text", ["a-" * 500_000, "a" * 1_000_000, "aB" * 500_000, "-" * 1_000_000, "é\u0301" * 500_000]
)
def test_splitting_takes_time_in_proportion_to_the_length_of_a_text(text: str) -> None:
    started = time.process_time()
    words_of(text)
    assert time.process_time() - started < 10  # a quadratic one takes hours


def test_the_words_of_a_text_fit_into_a_tsvector() -> None:
    stored = lexemes(7, " ".join(f"word{i}" for i in range(200_000)))
    assert MAX_WORDS_BYTES * 0.9 < len(stored.replace(" ", "")) <= MAX_WORDS_BYTES
    assert stored.startswith("7:word0 7:word1 ")


def test_a_long_query_keeps_its_longest_words() -> None:
    text = " ".join("abcdefghijklmnopqrstuvwxyz") + " ".join(f" identifier{i}" for i in range(MAX_QUERY_WORDS))
    assert len(queries(7, text)) == MAX_QUERY_WORDS
    assert all("identifier" in query for query in queries(7, text))


def test_a_query_is_quoted() -> None:
    assert queries(7, r"don't a\b") == ["'7:don''t'", "'7:don'", "'7:t'", r"'7:a\\b'", "'7:a'", "'7:b'"]


def test_reciprocal_rank_fusion_adds_up_the_reciprocals_of_ranks() -> None:
    # 1/61 + 1/63 for 1; 1/62 + 1/61 for 2; 1/63 for 3; 1/62 for 4
    assert fuse([1, 2, 3], [2, 4, 1]) == [2, 1, 4, 3]


def test_of_equal_sums_the_newest_prompt_is_first() -> None:
    assert fuse([1, 2], [2, 1]) == [2, 1]
    assert fuse([], []) == []
