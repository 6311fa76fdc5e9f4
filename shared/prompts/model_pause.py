"""The pause of a model route by an operator: its prompts keep their turns, and none is claimed until it is resumed.

It is a provider's pause (`provider_pause.py`) that does not end by itself: it ends in the year 9999. So claims, probes,
reapers and autoscalers obey it without a condition of their own, and a provider that fails meanwhile does not shorten
it. Prompts that are being answered go on. No prompt fails because it has waited for a paused route for too long.
"""

from sqlalchemy import text

from shared.db.engine import Executor

_PAUSE = text("""
    INSERT INTO routes (route, paused_until, unavailable_since, held_since, held_by, hold_reason)
    VALUES (:route, timestamptz '9999-12-31 00:00:00Z', now(), now(), :user_id, :reason)
    ON CONFLICT (route) DO UPDATE SET
        paused_until = excluded.paused_until,
        unavailable_since = coalesce(routes.unavailable_since, excluded.unavailable_since),
        held_since = coalesce(routes.held_since, excluded.held_since),
        held_by = excluded.held_by,
        hold_reason = excluded.hold_reason
""")

# The provider gets a new start: if it is still unavailable, the next prompt finds that.
_RESUME = text("""
    UPDATE routes SET held_since = NULL, held_by = NULL, hold_reason = NULL,
        paused_until = NULL, unavailable_since = NULL, pause_detail = NULL, failures = 0
    WHERE route = :route AND held_since IS NOT NULL
""")


def pause(executor: Executor, route: str, user_id: int, reason: str | None) -> None:
    """Pause a route on behalf of this user. If it is paused already, the reason is replaced."""
    executor.execute(_PAUSE, {"route": route, "user_id": user_id, "reason": reason})


def resume(executor: Executor, route: str) -> bool:
    """Resume a route. Returns whether it was paused: wake up workers for its prompts after the commit."""
    return executor.execute(_RESUME, {"route": route}).rowcount > 0  # type: ignore[attr-defined, no-any-return]


def detail(reason: str | None) -> str:
    """What users see."""
    return f"An operator has paused this model: {reason}" if reason else "An operator has paused this model."
