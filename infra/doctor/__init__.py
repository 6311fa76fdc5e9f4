"""Checks of an installation. Each problem comes with a sentence that says how to fix it.

A check is a function that yields findings: none if all is well. It may also yield observations about what works. It
raises NotCheckedError if it cannot run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from shared.settings import Settings, SettingsError

_FILE = "MODELS_FILE, whose keys replace these settings"


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


def each_model(
    settings: Settings, check: Callable[[Settings], Iterator[Finding | Observation]]
) -> Iterator[Finding | Observation]:
    """Run a check for each model route. Its sentences begin with the name of the model, if MODELS_FILE names it."""
    for route, model in settings.models.items():
        try:
            found = list(check(model))
        except SettingsError as error:
            found = [Finding(str(error), "See docs/models.md.")]
        if not settings.models_file:
            yield from found
            continue
        for each in found:
            if isinstance(each, Observation):
                yield Observation(f"{route}: {each.text}")
            else:
                yield replace(each, problem=f"{route}: {each.problem}", remedy=f"{each.remedy} See {_FILE}.")


class NotCheckedError(Exception):
    """A check could not run; the message says why."""
