"""The fair queue: round robin over users, with a stored number for each prompt.

A *lane* is the queue of one model route and priority. A prompt gets a *turn*, a number in its lane, whenever it becomes
claimable: at submission, at a retry, after a backoff. Claims take prompts in the order of (turn, id). The rounds are
those of fair queueing (Nagle 1987, "On Packet Switches with Infinite Storage"; Goyal, Vin, Cheng 1996, "Start-time
Fair Queuing"):

    round = max(the user's highest queued round, the lane's round) + k      for the k-th new prompt of that user
    turn  = 2 * round + (0 if the user had none queued and k = 1, else 1)

The lane's round is the highest that was ever claimed. So a user gets one new prompt in each round. A user with many
queued prompts has one in each round that others reach by submitting again. A user who had none queued goes first in
the round.

A released prompt keeps its turn. With USER_RUNNING_LIMIT only that many of a user's prompts run or have a turn; when
one of them ends, `grant_turns` gives the user's oldest waiting prompt a turn.

The turns of a user are given under an advisory lock of the user. So two API processes never give the same turn, and the
user's limits and budgets are exact. Lock order: idempotency keys, advisory locks of users, prompts, users, the ledger.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import text

from shared.db import advisory_locks
from shared.db.engine import Executor
from shared.db.models import CLAIMABLE, WITHOUT_TURN
from shared.prompts import model_pause
from shared.prompts.provider_pause import Waiting

#: The highest position that is counted.
MAX_POSITION = 10_000

#: Locks the users of the parameter :user_id, an array, until the end of the transaction; a statement of its own before
#: the one that reads their prompts, so that it sees what earlier holders of the locks have stored.
LOCK_USERS = f"""
    SELECT pg_advisory_xact_lock({advisory_locks.TURNS}, lock)
    FROM (
        SELECT DISTINCT hashint8(id) AS lock FROM unnest(CAST(:user_id AS bigint[])) AS locked(id) ORDER BY lock
    ) AS locks
"""  # noqa: S608  # nosec B608

#: The number of prompts of `owner.user_id` that run or have a turn.
COUNT_ACTIVE = f"""
    CASE WHEN CAST(:running_limit AS bigint) IS NULL THEN 0 ELSE (
        SELECT count(*) FROM (
            SELECT FROM prompts
            WHERE user_id = owner.user_id AND status IN ('queued', 'processing')
                AND (status = 'processing' OR {CLAIMABLE})
            LIMIT CAST(:running_limit AS bigint)
        ) AS active
    ) END
"""  # noqa: S608  # nosec B608

#: The turns of the rows of a table `runnable` with the columns id, user_id, route, priority, in the order of `id`.
WITH_TURNS = f"""
    SELECT runnable.*, 2 * (base.round + k) + CASE WHEN base.is_newcomer AND k = 1 THEN 0 ELSE 1 END AS turn
    FROM (
        SELECT *, row_number() OVER (PARTITION BY user_id, route, priority ORDER BY id) AS k FROM runnable
    ) AS runnable
    JOIN (
        SELECT user_id, route, priority, highest IS NULL AS is_newcomer,
            greatest(highest / 2, CASE priority WHEN 'low' THEN round_low ELSE round_default END, 0) AS round
        FROM (SELECT DISTINCT user_id, route, priority FROM runnable) AS lane
        CROSS JOIN LATERAL (
            SELECT max(turn) AS highest FROM prompts
            WHERE user_id = lane.user_id AND route = lane.route AND priority = lane.priority AND {CLAIMABLE}
        ) AS queued
        LEFT JOIN routes USING (route)
    ) AS base USING (user_id, route, priority)
"""  # noqa: S608  # nosec B608

# Rows that another transaction has locked are about to end, or to be granted a turn.
_GRANT = text(f"""
    {LOCK_USERS};
    WITH owner AS MATERIALIZED (
        SELECT user_id, {COUNT_ACTIVE} AS active
        FROM (SELECT DISTINCT user_id FROM unnest(CAST(:user_id AS bigint[])) AS given(user_id)) AS owner
    ), runnable AS MATERIALIZED (
        SELECT next.*
        FROM owner CROSS JOIN LATERAL (
            SELECT id, user_id, route, priority FROM prompts
            WHERE user_id = owner.user_id AND {WITHOUT_TURN} AND (not_before IS NULL OR not_before <= now())
            ORDER BY priority, id
            LIMIT CASE WHEN CAST(:running_limit AS bigint) IS NOT NULL
                THEN greatest(CAST(:running_limit AS bigint) - owner.active, 0) END
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS next
    ), granted AS (
        {WITH_TURNS}
    )
    UPDATE prompts SET turn = granted.turn, not_before = NULL, due_at = now() + :grace
    FROM granted
    WHERE prompts.id = granted.id
    RETURNING prompts.route
""")  # noqa: S608  # nosec B608

# Prompts that are about to be stored: they have no ids yet, so their numbers take the place of these.
_NEW_TURNS = text(f"""
    WITH owner AS MATERIALIZED (
        SELECT user_id, {COUNT_ACTIVE} AS active FROM (SELECT CAST(:user_id AS bigint) AS user_id) AS owner
    ), runnable AS MATERIALIZED (
        SELECT number AS id, user_id, route, CAST(:priority AS text) AS priority
        FROM owner CROSS JOIN unnest(CAST(:routes AS text[])) WITH ORDINALITY AS line(route, number)
        WHERE CAST(:running_limit AS bigint) IS NULL OR number <= CAST(:running_limit AS bigint) - active
    ), granted AS (
        {WITH_TURNS}
    )
    SELECT id, turn FROM granted
""")  # noqa: S608  # nosec B608

_LOCK = text(LOCK_USERS)

_USERS_WITHOUT_TURN = f"""
    SELECT DISTINCT user_id FROM prompts WHERE {WITHOUT_TURN} AND (not_before IS NULL OR not_before <= now())
"""  # noqa: S608  # nosec B608

# One scan in the order of the claims, up to the last of the prompts that are asked for.
_QUEUE_STATES = text(f"""
    WITH last AS MATERIALIZED (
        SELECT priority, turn, id FROM prompts WHERE id = ANY(CAST(:prompt_ids AS bigint[])) AND {CLAIMABLE}
        ORDER BY priority DESC, turn DESC, id DESC
        LIMIT 1
    )
    SELECT wanted.id, position, held_since IS NOT NULL AS is_held, hold_reason, pause_detail, paused_until
    FROM unnest(CAST(:prompt_ids AS bigint[])) AS wanted(id)
    LEFT JOIN (
        SELECT id, row_number() OVER (ORDER BY priority, turn, id) AS position
        FROM prompts
        WHERE route = :route AND {CLAIMABLE} AND (priority, turn, id) <= (SELECT priority, turn, id FROM last)
        ORDER BY priority, turn, id
        LIMIT :limit
    ) AS line USING (id)
    LEFT JOIN routes ON routes.route = :route AND unavailable_since IS NOT NULL
""")  # noqa: S608  # nosec B608


class QueueState(NamedTuple):
    """Where a queued prompt stands, and why it waits.

    `position` is None without a turn, and beyond the first MAX_POSITION. 1 is next. It may rise when newcomers submit.
    """

    position: int | None
    waiting_for: Waiting | None


def lock_users(executor: Executor, user_ids: Sequence[int]) -> None:
    """Lock the users until the end of the transaction: no other transaction submits prompts of them, or gives turns.

    A transaction must lock all of its users at once, in this order, or two of them may wait for each other.
    """
    executor.execute(_LOCK, {"user_id": list(user_ids)})


def users_without_turn(executor: Executor, prompt_ids: Sequence[int] | None = None) -> Sequence[int]:
    """The users who have prompts without a turn that may have one, but for USER_RUNNING_LIMIT.

    With `prompt_ids`, only the users of those of them.
    """
    if prompt_ids is None:
        return executor.execute(text(_USERS_WITHOUT_TURN)).scalars().all()
    among = text(f"{_USERS_WITHOUT_TURN} AND id = ANY(CAST(:prompt_ids AS bigint[]))")
    return executor.execute(among, {"prompt_ids": list(prompt_ids)}).scalars().all()


def grant_turns(
    executor: Executor, user_ids: Sequence[int], *, grace: timedelta, running_limit: int | None
) -> dict[str, int]:
    """Give the users' prompts without a turn one each, oldest first, as far as `running_limit` allows.

    Returns how many prompts became claimable, by route: wake up workers for them after the commit.
    """
    parameters = {"user_id": list(user_ids), "grace": grace, "running_limit": running_limit}
    return Counter(executor.execute(_GRANT, parameters).scalars()) if user_ids else {}


def new_turns(
    executor: Executor, user_id: int, routes: Sequence[str], priority: str, *, running_limit: int | None
) -> list[int | None]:
    """The turns of prompts that the caller stores next, in this order; None for those beyond `running_limit`.

    The caller holds the lock of the user until it has stored them.

    Args:
        routes: The model route of each prompt.
    """
    parameters = {"user_id": user_id, "routes": list(routes), "priority": priority, "running_limit": running_limit}
    turns = {row.id: row.turn for row in executor.execute(_NEW_TURNS, parameters)}
    return [turns.get(number) for number in range(1, len(routes) + 1)]


def queue_states(executor: Executor, route: str, prompt_ids: Sequence[int]) -> dict[int, QueueState]:
    """Where queued prompts of a route stand, by their ids."""
    parameters = {"route": route, "prompt_ids": list(prompt_ids), "limit": MAX_POSITION}
    return {row.id: QueueState(row.position, _waiting_for(row)) for row in executor.execute(_QUEUE_STATES, parameters)}


def _waiting_for(row: Any) -> Waiting | None:
    if row.is_held:
        return Waiting("paused", model_pause.detail(row.hold_reason), None)
    return None if row.paused_until is None else Waiting("provider", row.pause_detail, row.paused_until)
