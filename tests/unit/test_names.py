"""The normal forms of usernames and passwords."""

import time

import pytest

from shared.accounts import names

COMPOSED, DECOMPOSED = "caf\u00e9-caf\u00e9", "cafe\u0301-cafe\u0301"


class TestUsernames:
    @pytest.mark.parametrize(
        ("typed", "stored"),
        [
            ("alice", "alice"),
            ("Alice", "Alice"),
            ("A.b-c_9", "A.b-c_9"),
            ("a" * 150, "a" * 150),
            ("...", "..."),
            (".a", ".a"),
            ("..a", "..a"),
            ("a..", "a.."),
            ("\uff21\uff4c\uff49\uff43\uff45", "Alice"),  # fullwidth
            ("b\uff0eo", "b.o"),
            ("\u212aim", "Kim"),  # the Kelvin sign
        ],
    )
    def test_a_new_name_is_stored_in_its_normal_form_and_keeps_its_case(self, typed: str, stored: str) -> None:
        assert names.new_username(typed) == stored

    @pytest.mark.parametrize(
        "typed",
        [
            *("", ".", "..", "\uff0e", "a b", "a/b", "a\n", "a\0", "#5", "a" * 151, "\uff41" * 151),
            *("\u00e9ric", "e\u0301ric", "\u30a2\u30ea\u30b9", "\uff71", "\u0130", "\u2024", "a\u200db", "\ud800"),
        ],
    )
    def test_a_new_name_of_other_characters_is_refused_with_a_sentence(self, typed: str) -> None:
        with pytest.raises(ValueError, match="Usernames use letters, digits"):
            names.new_username(typed)

    @pytest.mark.parametrize("typed", ["ALICE", "alice", "\uff41LI\uff43e"])
    def test_all_ways_to_write_a_name_are_folded_to_one(self, typed: str) -> None:
        assert names.fold(typed) == "alice"

    @pytest.mark.parametrize("typed", ["", "a b", "\ud800", "\u0378", "x" * 100_000])
    def test_a_text_that_cannot_be_a_name_is_folded_without_an_error(self, typed: str) -> None:
        assert names.fold(typed) == typed


class TestPasswords:
    @pytest.mark.parametrize(
        ("typed", "normal"),
        [
            ("correct horse", "correct horse"),
            (" spaces ", " spaces "),
            (DECOMPOSED, COMPOSED),
            ("no\u00a0break\u3000space", "no break space"),
            ("\uff26\uff35\uff2c\uff2cwidth", "\uff26\uff35\uff2c\uff2cwidth"),  # kept: OpaqueString maps no widths
            ("smile \U0001f600 please", "smile \U0001f600 please"),
            ("x" * 1024, "x" * 1024),
        ],
    )
    def test_a_new_password_gets_its_normal_form(self, typed: str, normal: str) -> None:
        assert names.new_password(typed) == normal

    @pytest.mark.parametrize(
        "typed", ["tab\tin here", "null\0null", "zero\u200dwidth", "surrogate\ud800", "unassigned \u0378"]
    )
    def test_a_new_password_with_a_character_that_cannot_be_seen_is_refused(self, typed: str) -> None:
        with pytest.raises(ValueError, match="control characters, invisible characters or unassigned"):
            names.new_password(typed)

    @pytest.mark.parametrize("typed", ["", "short", "x" * 1025, "e\u0301" * 7])
    def test_a_new_password_of_the_wrong_length_is_refused(self, typed: str) -> None:
        with pytest.raises(ValueError, match="8 to 1024 characters"):
            names.new_password(typed)

    @pytest.mark.parametrize(
        ("typed", "tried"),
        [
            ("plain", ["plain"]),
            (COMPOSED, [COMPOSED]),
            (DECOMPOSED, [COMPOSED, DECOMPOSED]),
            ("tab\there", ["tab\there"]),
            ("", [""]),
            ("x" * 2000, ["x" * 2000]),
        ],
    )
    def test_a_login_tries_the_normal_form_and_then_the_password_as_typed(self, typed: str, tried: list[str]) -> None:
        assert names.password_forms(typed) == tried


def test_the_length_is_checked_before_normalising() -> None:
    """Sorting the marks of this one takes a minute."""
    marks = "a" + "\u0345" * 50_000 + "\u0334" * 50_000
    started = time.perf_counter()
    with pytest.raises(ValueError, match="1024"):
        names.new_password(marks)
    with pytest.raises(ValueError, match="150"):
        names.new_username(marks)
    assert names.password_forms(marks) == [marks]
    assert names.fold(marks) == marks.lower()
    assert time.perf_counter() - started < 10
