"""The checks of the model, and the broken rules that they must notice."""

from dataclasses import dataclass
from typing import Literal

_QUEUE = ("NO_SOCKET",)
_FEED = ("WORKERS=0", "CANCELS=4", "RETRIES=3")  # events only come from users who cancel and retry


@dataclass(frozen=True, slots=True)
class Check:
    """One exhaustive search.

    `macros` choose a part of the model, and the number of faults and prompts in it. A safety check looks at the end of
    every execution that ends, a liveness check for executions that never end. Both find violated assertions.
    """

    name: str
    macros: tuple[str, ...]
    kind: Literal["safety", "liveness"] = "safety"


CHECKS = (
    Check("queue: 2 faults, a retry", (*_QUEUE, "FAULTS=2", "CANCELS=0")),
    Check("queue: 1 fault, a retry, a cancel", (*_QUEUE, "FAULTS=1")),
    Check("queue: 3 prompts", (*_QUEUE, "PROMPTS=3", "FAULTS=0", "CANCELS=0", "RETRIES=0")),
    Check("queue: no execution is endless", (*_QUEUE, "FAULTS=1", "CANCELS=0"), "liveness"),
    Check("feed: 3 faults, 4 events", (*_FEED, "FAULTS=3")),
    Check("feed: no execution is endless", (*_FEED, "FAULTS=3"), "liveness"),
    Check("queue and feed: 1 fault", ("FAULTS=1", "CANCELS=0", "RETRIES=0")),
)

SMALL_QUEUE = Check("queue: 1 fault", (*_QUEUE, "FAULTS=1", "CANCELS=0", "RETRIES=0"))
SMALL_FEED = Check("feed: 1 fault", (*_FEED, "FAULTS=1"))

#: A macro that breaks a rule, the check that notices it, and a part of the assertion that fails. For the tests.
BROKEN_RULES = (
    ("NO_REAPER", SMALL_QUEUE, "status["),
    ("MESSAGE_IS_TRUTH", SMALL_QUEUE, "status["),
    ("WAKE_BEFORE_COMMIT", SMALL_QUEUE, "in_hand"),
    ("CLAIM_NOT_EXCLUSIVE", SMALL_QUEUE, "ended[p]"),
    ("NO_FENCE", SMALL_QUEUE, "ended[p]"),
    ("FENCE_WITHOUT_ATTEMPT", SMALL_QUEUE, "attempt[p]==mine"),
    ("FEED_AFTER_COMMIT", SMALL_QUEUE, "seq==endings"),
    ("NO_CATCH_UP", SMALL_FEED, "seen"),
    ("NO_FEED_CHECK", SMALL_FEED, "seen==seq"),
    ("CURSOR_OF_SERVER", SMALL_FEED, "seen"),
    ("PUSH_AS_ANNOUNCED", SMALL_FEED, "cursor==(seen+1)"),
)
