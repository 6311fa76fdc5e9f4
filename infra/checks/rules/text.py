"""Helpers for rules that compare texts."""

import re
from collections.abc import Iterator


def search(pattern: str, text: str) -> str:
    """Return the first group of the first match; empty if there is none."""
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else ""


def differences(what: str, places: dict[str, str]) -> Iterator[str]:
    """Yield a sentence with all values, by place, if they are not all equal."""
    if len(set(places.values())) > 1:
        yield f"{what} differs: " + ", ".join(f"{value or 'none'} in {place}" for place, value in places.items())
