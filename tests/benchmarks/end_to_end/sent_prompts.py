"""The prompts that the load generator has sent, and the figures computed from their outcomes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.benchmarks.end_to_end.wire import Answer


@dataclass(slots=True)
class SentPrompt:
    """A prompt of a user: when it was due, when it was sent, and its outcome."""

    user: int
    due: float
    started: float
    answer: Answer | None = None
    answered: float = 0.0
    failure: str = ""
    pushed: float = 0.0

    @property
    def is_accepted(self) -> bool:
        return self.answer is not None and 200 <= self.answer.status < 300

    @property
    def is_pending(self) -> bool:
        """Whether the response or the push is still expected."""
        return not self.pushed if self.is_accepted else not self.answered

    @property
    def outcome(self) -> str:
        """The status of the response, or why there is none."""
        return str(self.answer.status) if self.answer else self.failure or "unanswered"


def figures(phase: Sequence[SentPrompt], started: float, ended: float) -> dict[str, Any]:
    """Summarise a phase: counts of all prompts, latencies in milliseconds of those due from `started` to `ended`."""
    unavailable = [sent.answer for sent in phase if sent.answer and sent.answer.status == 503]
    within = [sent for sent in phase if started <= sent.due < ended]
    accepted = [sent for sent in within if sent.is_accepted]
    return {
        "seconds": round(ended - started, 3),
        "sent": len(phase),
        "answers": dict(sorted(Counter(sent.outcome for sent in phase).items())),
        "accepted": sum(sent.is_accepted for sent in phase),
        "503_without_retry_after": sum(not answer.retry_after for answer in unavailable),
        "lost": sum(sent.is_accepted and not sent.pushed for sent in phase),
        "pushed_in_window": sum(started <= sent.pushed < ended for sent in phase),
        "push_ms": quantiles([sent.pushed - sent.due for sent in accepted if sent.pushed]),
        "submit_ms": quantiles([sent.answered - sent.due for sent in accepted]),
        "late_ms": quantiles([sent.started - sent.due for sent in within]),
    }


def quantiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return p50, p90, p99 and the maximum, in milliseconds."""
    if not seconds:
        return None
    p50, p90, p99 = np.quantile(seconds, (0.5, 0.9, 0.99))
    named = {"p50": p50, "p90": p90, "p99": p99, "max": max(seconds)}
    return {name: round(float(value) * 1e3, 2) for name, value in named.items()}
