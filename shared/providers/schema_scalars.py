"""Strings and numbers that satisfy all of several plain JSON schemas."""

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from typing import Any

from shared.providers.pattern_strings import matching
from shared.providers.schema_alternatives import TooComplexError

#: How many values of one place are tried.
MAX_TRIES = 64
MAX_STRING_LENGTH = 100_000

Plain = Sequence[Mapping[str, Any]]

_FORMATS: Mapping[str, str] = {
    "date-time": "2026-01-31T12:30:00Z",
    "date": "2026-01-31",
    "time": "12:30:00Z",
    "duration": "PT1H30M",
    "email": "ada@example.com",
    "idn-email": "ada@example.com",
    "hostname": "example.com",
    "idn-hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/a",
    "uri-reference": "/a",
    "iri": "https://example.com/a",
    "iri-reference": "/a",
    "uri-template": "https://example.com/{id}",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
    "json-pointer": "/a/0",
    "relative-json-pointer": "1/a",
    "regex": "^a+$",
}
_WORDS = ("text", "a", "sample", "other", "word", "", "value")


def most(plain: Plain, keyword: str) -> Any:
    """The highest value of a keyword; None without any."""
    return max((each[keyword] for each in plain if keyword in each), default=None)


def least(plain: Plain, keyword: str) -> Any:
    """The lowest value of a keyword; None without any."""
    return min((each[keyword] for each in plain if keyword in each), default=None)


def strings(plain: Plain) -> Iterator[str]:
    """Yield strings of the right length: of a format, by a pattern, then words. Whether they match is not checked."""
    at_least, at_most = int(most(plain, "minLength") or 0), least(plain, "maxLength")
    if at_least > MAX_STRING_LENGTH:
        raise TooComplexError
    patterns = [each["pattern"] for each in plain if "pattern" in each]
    formats = [_FORMATS[each["format"]] for each in plain if each.get("format") in _FORMATS]
    words = (word + "text" * (-(-max(0, at_least - len(word)) // 4)) for word in _WORDS)
    cut = (word[: max(at_least, len(_WORDS[0]))] if at_most is None else word[: int(at_most)] for word in words)
    numbered = (f"{number}".rjust(at_least, "x") for number in range(MAX_TRIES))
    for text in chain(formats, *map(matching, patterns), cut, numbered):
        if len(text) >= at_least and (at_most is None or len(text) <= at_most):
            yield text


def numbers(plain: Plain, *, is_integer: bool) -> Iterator[int | float]:
    """Yield numbers within the bounds: multiples of what they must be multiples of, those nearest to 1 first."""
    low, high = _bound(plain, "minimum", max, 1), _bound(plain, "maximum", min, -1)
    step = Fraction(1) if is_integer else Fraction(0)
    for each in plain:
        if "multipleOf" in each:
            step = _common_multiple(step, Fraction(str(each["multipleOf"])))
    if not step:
        step = (
            Fraction(1)
            if low is None or high is None or high[0] - low[0] >= 4
            else (high[0] - low[0]) / 4 or Fraction(1)
        )
    for number in _steps(low, high, step):
        yield int(number) if number.denominator == 1 else float(number)


_Bound = tuple[Fraction, bool]


def _bound(plain: Plain, keyword: str, stricter: Any, sign: int) -> _Bound | None:
    """The strictest bound, and whether it is excluded."""
    bounds = []
    for each in plain:
        exclusive = f"exclusive{keyword.title()}"
        if keyword in each:
            bounds.append((Fraction(str(each[keyword])), each.get(exclusive) is True))  # draft 4 has booleans
        if exclusive in each and not isinstance(each[exclusive], bool):
            bounds.append((Fraction(str(each[exclusive])), True))
    return stricter(bounds, key=lambda bound: (bound[0], sign * bound[1])) if bounds else None


def _steps(low: _Bound | None, high: _Bound | None, step: Fraction) -> Iterator[Fraction]:
    """Yield multiples of a step within bounds, upwards from the lowest, or downwards from the highest."""
    if low is None and high is not None and high[0] <= step:
        first, direction = math.floor(high[0] / step), -1
    else:
        first, direction = 1 if low is None else math.ceil(low[0] / step), 1
        if low is not None and low[0] <= step and (high is None or high[0] >= step):
            first = 1  # 1 says more than the lowest number
    starts = (first, math.ceil(low[0] / step)) if low is not None else (first,)
    for start in dict.fromkeys(starts):
        for offset in range(MAX_TRIES // 2):
            number = (start + direction * offset) * step
            if _is_inside(number, low, high):
                yield number
    if low is not None and high is not None and low[0] <= high[0]:
        yield (low[0] + high[0]) / 2


def _is_inside(number: Fraction, low: _Bound | None, high: _Bound | None) -> bool:
    above = low is None or number > low[0] or (number == low[0] and not low[1])
    below = high is None or number < high[0] or (number == high[0] and not high[1])
    return above and below


def _common_multiple(one: Fraction, other: Fraction) -> Fraction:
    if not one:
        return other
    numerator = math.lcm(one.numerator * other.denominator, other.numerator * one.denominator)
    return Fraction(numerator, one.denominator * other.denominator)
