"""Checks of an installation. Each problem comes with a sentence that says how to fix it.

A check is a function that yields findings: none if all is well. It may also yield observations about what works. It
raises NotCheckedError if it cannot run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from shared.settings import Settings


class Severity(StrEnum):
    WRONG = "wrong"  # data gets lost, requests are refused, or others have access
    BEWARE = "beware"  # it works, with a consequence that the operator should know


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem, and what to do about it."""

    problem: str
    remedy: str
    severity: Severity = Severity.WRONG


@dataclass(frozen=True, slots=True)
class Observation:
    """Something to say about what works, such as how long it took."""

    text: str


class Check(NamedTuple):
    name: str
    run: Callable[[Settings], Iterator[Finding | Observation]]


class NotCheckedError(Exception):
    """A check could not run; the message says why."""
