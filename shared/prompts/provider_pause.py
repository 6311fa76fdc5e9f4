"""The pause of an unavailable provider: a circuit breaker in the row of its route, for all workers.

unavailable → paused → probe → available, or paused again for longer

Nothing of the route is claimed during the pause, and prompts keep their turns. Once it is over, one prompt is claimed
as a probe (see `shared/prompts/claims.py`). If the provider answers it, the pause ends; else the pause becomes longer.
All times are the database's.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from sqlalchemy import text

from shared.db.engine import Executor

#: The pause after a first failure, unless the provider names one. It doubles with each, up to the maximum.
MIN_PAUSE, MAX_PAUSE = timedelta(seconds=1), timedelta(seconds=30)


class Waiting(NamedTuple):
    """Why the prompts of a route wait: for its provider, or because an operator has paused it (`model_pause.py`)."""

    reason: Literal["provider", "paused"]
    detail: str
    next_attempt_at: datetime | None  #: when the provider is tried again


class PauseBegin(NamedTuple):
    """What a call of `pause` did."""

    is_new: bool  #: whether the route was not paused before, or this is the pause after a probe
    next_attempt_at: datetime
    seconds: float  #: until then


# Several prompts may find the provider unavailable at the same moment: only the first of them, or the probe, counts.
# The jitter keeps services that share a provider apart (AWS Architecture Blog, "Exponential Backoff And Jitter").
_PAUSE = text("""
    INSERT INTO routes (route, failures, unavailable_since, pause_detail, paused_until)
    VALUES (:route, 1, now(), :detail, now() + coalesce(CAST(:retry_after AS interval), :min_pause) * :jitter)
    ON CONFLICT (route) DO UPDATE SET
        failures = routes.failures + CASE
            WHEN routes.paused_until IS NULL OR routes.paused_until = CAST(:probe AS timestamptz) THEN 1 ELSE 0
        END,
        unavailable_since = coalesce(routes.unavailable_since, now()),
        pause_detail = :detail,
        paused_until = greatest(
            now() + :jitter * coalesce(
                CAST(:retry_after AS interval), least(:min_pause * 2 ^ least(routes.failures, 10), :max_pause)
            ),
            nullif(routes.paused_until, CAST(:probe AS timestamptz))
        )
    RETURNING paused_until, extract(epoch FROM paused_until - now())
""")

_LOCK = text("SELECT paused_until FROM routes WHERE route = :route FOR NO KEY UPDATE")

# The limit of the route grows with the time since its last reduction; a pause is no part of that time.
_AVAILABLE = text("""
    UPDATE routes SET failures = 0, unavailable_since = NULL, pause_detail = NULL, paused_until = NULL,
        concurrency_reduced_at = CASE WHEN concurrency IS NOT NULL THEN clock_timestamp() END
    WHERE route = :route AND paused_until = :probe
""")

_OVER = text("SELECT route FROM routes WHERE paused_until <= now()")

_PROBE_AGAIN = text("UPDATE routes SET paused_until = now() WHERE route = :route AND paused_until = :probe")

# `due_at` is set while a prompt is unfinished: the index has only those.
_WAITING_TOO_LONG = text("""
    SELECT prompts.id, attempt, pause_detail
    FROM prompts JOIN routes USING (route)
    WHERE status = 'queued' AND due_at IS NOT NULL AND paused_until > now() AND held_since IS NULL
        AND greatest(queued_at, unavailable_since) < now() - :patience
    ORDER BY prompts.id
    LIMIT :limit
""")


def pause(
    executor: Executor, route: str, detail: str, *, retry_after: timedelta | None, jitter: float, probe: datetime | None
) -> PauseBegin:
    """Pause a route because its provider is unavailable.

    Args:
        detail: The provider's error, as users see it.
        retry_after: How long the provider asks to be left alone. None: MIN_PAUSE, doubled for each pause in succession.
        jitter: A factor by which the pause is longer.
        probe: That of the claim that found the provider unavailable, if it was a probe.
    """
    paused_until = executor.execute(_LOCK, {"route": route}).scalar()
    next_attempt_at, seconds = executor.execute(
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
    ).one()
    return PauseBegin(paused_until is None or paused_until == probe, next_attempt_at, float(seconds))


def end(executor: Executor, route: str, probe: datetime) -> bool:
    """End the pause of a route, because its provider has answered this probe. Returns whether it did: wake up workers.

    A pause that began after the probe stays.
    """
    return executor.execute(_AVAILABLE, {"route": route, "probe": probe}).rowcount > 0  # type: ignore[attr-defined, no-any-return]


def probe_again(executor: Executor, route: str, probe: datetime) -> None:
    """Let the next claim be the probe, because this one ended without an answer of the provider."""
    executor.execute(_PROBE_AGAIN, {"route": route, "probe": probe})


def find_over(executor: Executor) -> Sequence[str]:
    """The routes whose pause is over, so that their next claim is a probe."""
    return executor.execute(_OVER).scalars().all()


class WaitingPrompt(NamedTuple):
    """A queued prompt that has waited for its provider for too long."""

    id: int
    attempt: int
    detail: str


def find_waiting_too_long(executor: Executor, patience: timedelta, *, limit: int) -> Sequence[WaitingPrompt]:
    """The queued prompts that have waited longer than `patience` for a provider that was unavailable all the time."""
    rows = executor.execute(_WAITING_TOO_LONG, {"patience": patience, "limit": limit})
    return [WaitingPrompt(*row) for row in rows]
