"""One look at everything that has to be right, and for each thing that is not a sentence on how to mend it.

A check is a function that yields findings. One that has none is fine; one that cannot be made says so.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from shared.settings import Settings


class Severity(StrEnum):
    WRONG = "wrong"  # something will be lost, refused, or open to others
    BEWARE = "beware"  # it works; you should know


@dataclass(frozen=True, slots=True)
class Finding:
    """What is not as it should be, and what to do."""

    problem: str
    remedy: str
    severity: Severity = Severity.WRONG


class Check(NamedTuple):
    name: str
    look: Callable[[Settings], Iterator[Finding]]


class NotCheckedError(Exception):
    """A check could not be made; the message says why."""
