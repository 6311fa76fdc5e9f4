"""The pause of an unavailable provider: a row that all workers see, instead of one backoff in each process.

unavailable → paused → probe → available, or paused again for longer

Prompts keep their turns meanwhile. Claims and the reaper read the pause; once it is over, a claim takes one prompt as a
probe (see `shared/prompts/claims.py`), whose end decides. All times are the database's.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import text

from shared.db.engine import Executor

#: The pause after a first failure, unless the provider names one. It doubles with each, up to the maximum.
MIN_PAUSE, MAX_PAUSE = timedelta(seconds=1), timedelta(seconds=30)


class ProviderPause(NamedTuple):
    """Why the prompts of a route wait, and when the provider is tried again."""

    detail: str
    next_attempt_at: datetime


# Several prompts may find the provider unavailable at the same moment: only the first of them, or the probe, counts.
# The jitter keeps services that share a provider apart (AWS Architecture Blog, "Exponential Backoff And Jitter").
_PAUSE = text("""
    INSERT INTO lanes AS lane (route, failures, unavailable_since, pause_detail, paused_until)
    VALUES (:route, 1, now(), :detail, now() + coalesce(CAST(:retry_after AS interval), :min_pause) * :jitter)
    ON CONFLICT (route) DO UPDATE SET
        failures = lane.failures
            + CASE WHEN lane.paused_until IS NULL OR lane.paused_until = CAST(:probe AS timestamptz) THEN 1 ELSE 0 END,
        unavailable_since = coalesce(lane.unavailable_since, now()),
        pause_detail = :detail,
        paused_until = greatest(
            now() + :jitter * coalesce(
                CAST(:retry_after AS interval), least(:min_pause * 2 ^ least(lane.failures, 10), :max_pause)
            ),
            nullif(lane.paused_until, CAST(:probe AS timestamptz))
        )
""")

_AVAILABLE = text("""
    UPDATE lanes SET failures = 0, unavailable_since = NULL, pause_detail = NULL, paused_until = NULL
    WHERE route = :route AND paused_until = :probe
""")

_PROBE_AGAIN = text("UPDATE lanes SET paused_until = now() WHERE route = :route AND paused_until = :probe")

# `due_at` is set while a prompt is unfinished: the index has only those.
_IMPATIENT = text("""
    SELECT prompts.id, attempt, pause_detail
    FROM prompts JOIN lanes USING (route)
    WHERE status = 'queued' AND due_at IS NOT NULL AND paused_until > now()
        AND greatest(queued_at, unavailable_since) < now() - :patience
    ORDER BY prompts.id
    LIMIT :limit
""")


def pause(
    executor: Executor, route: str, detail: str, *, retry_after: timedelta | None, jitter: float, probe: datetime | None
) -> None:
    """Leave the provider of a route alone: for `retry_after` if it asks for that, else for longer each time.

    `probe` is that of the claim that found it unavailable, if it was a probe; `jitter` stretches the pause.
    """
    executor.execute(
        _PAUSE,
        {
            "route": route,
            "detail": detail,
            "retry_after": None if retry_after is None else max(retry_after, MIN_PAUSE),
            "min_pause": MIN_PAUSE,
            "max_pause": MAX_PAUSE,
            "jitter": jitter,
            "probe": probe,
        },
    )


def end(executor: Executor, route: str, probe: datetime) -> bool:
    """End the pause: the provider has answered this probe. Returns whether it did; if so, wake up workers.

    A pause that began after the probe stays.
    """
    return executor.execute(_AVAILABLE, {"route": route, "probe": probe}).rowcount > 0  # type: ignore[attr-defined, no-any-return]


def probe_again(executor: Executor, route: str, probe: datetime) -> None:
    """Let another prompt be the probe at once: this one ended without an answer of the provider."""
    executor.execute(_PROBE_AGAIN, {"route": route, "probe": probe})


class ImpatientPrompt(NamedTuple):
    """A queued prompt that has waited for its provider for too long."""

    id: int
    attempt: int
    detail: str


def impatient(executor: Executor, patience: timedelta, *, limit: int) -> Sequence[ImpatientPrompt]:
    """The queued prompts that have waited longer than `patience` for a provider that was unavailable all the time."""
    rows = executor.execute(_IMPATIENT, {"patience": patience, "limit": limit})
    return [ImpatientPrompt(*row) for row in rows]
