"""How many prompts of a model route are answered at a time, by all workers together.

A running prompt holds a *slot* of its route. The limit of the slots is the lower of two:

- the ceiling: the route's `concurrency`, or OPENAI_CONCURRENCY, which does not change;
- `routes.concurrency`, which follows what the provider can handle. NULL: it has not refused any.

The second is AIMD, additive increase and multiplicative decrease (Chiu and Jain 1989, "Analysis of the Increase and
Decrease Algorithms for Congestion Avoidance"), as in TCP (Jacobson 1988, "Congestion Avoidance and Control"):

- A refusal reduces it to DECREASE times the prompts that still run. TCP's factor is one half, CUBIC's 0.7 (RFC 9438);
  here a refusal costs little, because the prompt keeps its turn. An attempt that was claimed before the last reduction
  belongs to the same event and does not reduce the limit by the factor again. Then the limit only follows the number
  of prompts that still run, so after a burst it is what the provider has kept.
- An answer adds 1 / limit, so all answers of a round add 1, as long as half of the slots are used (RFC 7661).
- Once it has doubled since the last reduction, or by a round of answers from 1, an answer adds 1, so that it doubles
  with each round (TCP's slow start): the provider can handle much more than it did.

It is NULL again when it reaches the ceiling, or without a refusal for FORGET_AFTER.

The slots are counted under an advisory lock of the route, which each claim of a limited route takes, so the limit holds
exactly. Lock order: advisory locks of routes, routes, prompts.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import text

from shared.db import advisory_locks
from shared.db.engine import Executor
from shared.db.models import CLAIMABLE

#: The factor of a reduction.
DECREASE = 0.8
#: After this long without a refusal, the only limit of a route is its ceiling.
FORGET_AFTER = timedelta(hours=1)

#: Locks the slots of the parameter :route until the end of the transaction; a statement of its own before the one that
#: counts them, so that it sees what earlier holders of the lock have claimed.
LOCK_SLOTS = f"SELECT pg_advisory_xact_lock({advisory_locks.SLOTS}, hashtext(:route))"

#: The limit of the parameters :route and :ceiling; NULL if there is none.
LIMIT = """
    least(CAST(:ceiling AS bigint), (SELECT CAST(floor(concurrency) AS bigint) FROM routes WHERE route = :route))
"""

#: How many slots of the parameter :route are in use.
RUNNING = "(SELECT count(*) FROM prompts WHERE route = :route AND status = 'processing')"

# Nothing that follows waits for the disk: at worst a prompt is released only when its lease has lapsed.
_LOCK = text(f"SET LOCAL synchronous_commit = off; {LOCK_SLOTS}")

# `claimed_at` is compared with times of the same clock that are taken under the lock.
_REDUCE = text(f"""
    WITH event AS MATERIALIZED (
        SELECT {RUNNING} - :refused AS running,
            coalesce((SELECT concurrency_reduced_at < :claimed_at FROM routes WHERE route = :route), true) AS is_new
    )
    INSERT INTO routes AS old (route, concurrency, concurrency_reduced_at)
    SELECT :route, greatest(1, running * CAST(:decrease AS float)), clock_timestamp() FROM event
    ON CONFLICT (route) DO UPDATE SET
        concurrency = least(
            old.concurrency,
            CASE WHEN (SELECT is_new FROM event) THEN excluded.concurrency
            ELSE greatest(1, (SELECT running FROM event)) END
        ),
        concurrency_reduced_at = CASE WHEN (SELECT is_new FROM event) THEN excluded.concurrency_reduced_at
            ELSE old.concurrency_reduced_at END
    RETURNING concurrency, (SELECT running FROM event) AS running, (SELECT is_new FROM event) AS is_new
""")  # noqa: S608  # nosec B608

# How long the attempt took is the length of a round. It does not wait for the disk: at worst an increase is lost.
_INCREASE = text(f"""
    SET LOCAL synchronous_commit = off;
    UPDATE routes SET concurrency = CASE
        WHEN increased >= CAST(:ceiling AS bigint) OR concurrency_reduced_at < now() - :forget_after THEN NULL
        ELSE increased
    END
    FROM (
        SELECT route AS increased_route, concurrency + CASE
            WHEN clock_timestamp() - concurrency_reduced_at
                >= (clock_timestamp() - CAST(:claimed_at AS timestamptz)) * concurrency / 2
            THEN :answered ELSE :answered / concurrency
        END AS increased
        FROM routes
        WHERE route = :route AND concurrency_reduced_at < :claimed_at AND concurrency <= 2 * (:answered + {RUNNING})
    ) AS increase
    WHERE route = increased_route
""")  # noqa: S608  # nosec B608

_COUNT_READY = text(f"""
    SELECT count(*) FROM (
        SELECT FROM prompts WHERE route = :route AND {CLAIMABLE}
        ORDER BY priority, turn, id
        LIMIT (
            SELECT greatest(0, least(
                CAST(:max AS bigint),
                (
                    SELECT CASE WHEN paused_until > now() THEN 0 WHEN paused_until IS NOT NULL THEN 1 END
                    FROM routes WHERE route = :route
                ),
                CASE WHEN slots IS NOT NULL THEN slots - {RUNNING} WHEN :if_limited THEN 0 END
            ))
            FROM (SELECT {LIMIT} AS slots) AS limited
        )
    ) AS ready
""")  # noqa: S608  # nosec B608


class Reduction(NamedTuple):
    """What a refusal for overload did to the limit of a route."""

    limit: float
    running: int  #: how many other prompts of the route run
    is_new: bool  #: whether this was the first refusal since the limit holds


def reduce(executor: Executor, route: str, *, refused: int, claimed_at: datetime) -> Reduction:
    """Reduce the limit of a route, because its provider has refused running prompts for its load.

    Release the prompts in the same transaction: the slots stay locked until it ends.

    Args:
        refused: How many running prompts it has refused.
        claimed_at: When they were claimed.
    """
    executor.execute(_LOCK, {"route": route})
    parameters = {"route": route, "refused": refused, "claimed_at": claimed_at, "decrease": DECREASE}
    row = executor.execute(_REDUCE, parameters).one()
    return Reduction(row.concurrency, row.running, row.is_new)


def increase(executor: Executor, route: str, *, answered: int, claimed_at: datetime, ceiling: int | None) -> None:
    """Increase the reduced limit of a route after this many answers of its provider.

    Those that were claimed before the reduction say nothing about the limit, and are not counted.
    """
    parameters = {
        "route": route,
        "answered": answered,
        "claimed_at": claimed_at,
        "ceiling": ceiling,
        "forget_after": FORGET_AFTER,
    }
    executor.execute(_INCREASE, parameters)


def count_ready(executor: Executor, route: str, *, ceiling: int | None, limit: int, if_limited: bool = False) -> int:
    """How many prompts of the route a claim could take now, at most `limit`.

    None during the pause of its provider, one when that is over, and as many as there are free slots. With
    `if_limited`, none if the route has no limit.
    """
    parameters = {"route": route, "ceiling": ceiling, "max": limit, "if_limited": if_limited}
    return int(executor.execute(_COUNT_READY, parameters).scalar_one())
