"""Makes strings that match a regular expression, for instances of JSON schemas.

Libraries for this choose at random and without a limit: `((a{1000}){1000}){1000}` is a gigabyte.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

MAX_CHARACTERS = 10_000
#: How often what may be repeated is repeated beyond its minimum: the first string that fits wins.
_REPETITIONS = (0, 1, 2, 3, 4, 7, 9, 15, 31, 63, 255)
#: A character of each category, and the category as a pattern.
_CATEGORIES = {
    codes.CATEGORY_DIGIT: ("0", r"\d"),
    codes.CATEGORY_NOT_DIGIT: ("a", r"\D"),
    codes.CATEGORY_SPACE: (" ", r"\s"),
    codes.CATEGORY_NOT_SPACE: ("a", r"\S"),
    codes.CATEGORY_WORD: ("a", r"\w"),
    codes.CATEGORY_NOT_WORD: ("-", r"\W"),
}
_ANY = "aA0-_ .é"


class _UnmatchableError(Exception):
    """The expression has a part that cannot be made, or is too long."""


def matching(pattern: str) -> Iterator[str]:
    """Yield different strings that should match the pattern, the shortest first; none if it is not understood.

    Lookarounds are ignored, and the syntax is Python's: callers check the strings with what reads the pattern.
    """
    with suppress(re.error, RecursionError, OverflowError, Warning, _UnmatchableError):
        tree, seen = parser.parse(pattern), set()
        for repetitions in _REPETITIONS:
            text = _Maker(repetitions).make(tree)
            if text not in seen:
                seen.add(text)
                yield text


class _Maker:
    """Makes one string from a parsed expression."""

    def __init__(self, repetitions: int) -> None:
        self._repetitions = repetitions
        self._groups: dict[int, str] = {}
        self._left = MAX_CHARACTERS

    def make(self, tree: Sequence[tuple[Any, Any]]) -> str:
        self._spend(1)  # so that empty groups, too, are not repeated for ever
        return "".join(self._part(code, value) for code, value in tree)

    def _part(self, code: Any, value: Any) -> str:
        if code in (codes.AT, codes.ASSERT, codes.ASSERT_NOT):
            return ""
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            return self._repeated(*value)
        if code is codes.SUBPATTERN:
            self._groups[value[0]] = made = self.make(value[3])
            return made
        if code is codes.BRANCH:
            return self.make(value[1][0])
        if code is codes.ATOMIC_GROUP:
            return self.make(value)
        if code is codes.GROUPREF:
            return self._spent(self._groups.get(value, ""))
        return self._spent(_character(code, value))

    def _repeated(self, at_least: int, at_most: Any, tree: Sequence[tuple[Any, Any]]) -> str:
        most = MAX_CHARACTERS if at_most is codes.MAXREPEAT else int(at_most)
        count = max(at_least, min(most, at_least + self._repetitions))
        return "".join(self.make(tree) for _ in range(count))

    def _spent(self, text: str) -> str:
        self._spend(len(text))
        return text

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise _UnmatchableError


def _character(code: Any, value: Any) -> str:
    if code is codes.LITERAL:
        return chr(value)
    if code is codes.ANY:
        return "a"
    if code is codes.NOT_LITERAL:
        return next(each for each in _ANY if each != chr(value))
    if code is codes.IN:
        return _of_class(value)
    raise _UnmatchableError


def _of_class(members: Sequence[tuple[Any, Any]]) -> str:
    """A character of a class such as [a-z_]."""
    if members[0][0] is codes.NEGATE:
        banned = re.compile("|".join(map(_member_pattern, members[1:])))
        return next((each for each in _ANY + "\n\u4e00" if not banned.fullmatch(each)), "")
    code, value = members[0]
    if code is codes.RANGE:
        low, high = value
        return next((each for each in "aA0" if low <= ord(each) <= high), chr(low))
    return _CATEGORIES[value][0] if code is codes.CATEGORY else chr(value)


def _member_pattern(member: tuple[Any, Any]) -> str:
    code, value = member
    if code is codes.RANGE:
        return f"[{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}]"
    if code is codes.CATEGORY:
        return _CATEGORIES[value][1]
    return re.escape(chr(value))
