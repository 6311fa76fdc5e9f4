"""The statements of a claim: see `shared/prompts/claims.py`.

A claim does not wait for the disk: if the server crashes at once, the claim may be lost, and the prompt is claimed
again with the same attempt. Then either of the two may finish it, but only once.

The subqueries are materialized: one with SKIP LOCKED could be executed again, and lock more than its limit. A pause
that is over is locked, so that only one claim becomes its probe. The probe is the prompt that was attempted least.
Otherwise a prompt that the provider always refuses could be every probe. The pause is prolonged, in case the probe's
worker dies.

A prompt that was attempted before is claimed alone: if it kills its worker, no other prompt loses an attempt. For the
same reason a claim of several prompts raises their `attempt_limit`, and only `reschedule` lowers it again.

A route with a limit (`shared/prompts/concurrency.py`) has a statement of its own, which costs half as much again.
"""

from shared.accounts.metering import Used
from shared.accounts.usage import add_to_ledger
from shared.db.arrays import unnest
from shared.db.models import CLAIMABLE
from shared.db.prepared import PreparedStatement
from shared.prompts.concurrency import LIMIT, LOCK_SLOTS, RUNNING

#: How many ready prompts are counted, at most.
MAX_READY = 1_000

_TYPES = {
    "route": "text",
    "size": "bigint",
    "lease": "interval",
    "low_share": "bigint",
    "low_limit": "bigint",
    "low_first": "boolean",
}
_NO_WAIT = "SET LOCAL synchronous_commit = off;"


def _next_prompts(priority: str, size: str, *, without: str = "") -> str:
    """The SQL that locks the next prompts of a priority."""
    return f"""
        SELECT id, turn, attempt FROM prompts
        WHERE route = :route AND priority = '{priority}' AND {CLAIMABLE} {without}
        ORDER BY turn, id
        LIMIT {size}
        FOR NO KEY UPDATE SKIP LOCKED
    """  # noqa: S608  # nosec B608


# From what `wanted` allows to the prompts that are `chosen`, and the state of the route.
_CHOOSE = f"""
    probing AS MATERIALIZED (
        SELECT id, turn, attempt, priority FROM prompts
        WHERE route = :route AND {CLAIMABLE}
        ORDER BY attempt, priority, turn, id
        LIMIT CASE WHEN EXISTS (SELECT FROM probe) THEN 1 ELSE 0 END
        FOR NO KEY UPDATE SKIP LOCKED
    ), low_share AS MATERIALIZED (
        {_next_prompts("low", "(SELECT least(size, low_share, :low_limit) FROM wanted)")}
    ), default_share AS MATERIALIZED (
        {_next_prompts("default", "(SELECT size FROM wanted) - (SELECT count(*) FROM low_share)")}
    ), low_rest AS MATERIALIZED (
        {
    _next_prompts(
        "low",
        "(SELECT least(size - (SELECT count(*) FROM default_share), :low_limit) FROM wanted)"
        " - (SELECT count(*) FROM low_share)",
        without="AND id <> ALL(ARRAY(SELECT id FROM low_share))",
    )
}
    ), found AS MATERIALIZED (
        SELECT *, row_number() OVER (ORDER BY share, turn, id) AS claim_rank
        FROM (
            SELECT CASE WHEN :low_first THEN 1 ELSE 3 END AS share, 'low' AS priority, * FROM low_share
            UNION ALL SELECT 2, 'default', * FROM default_share
            UNION ALL SELECT 3, 'low', * FROM low_rest
            UNION ALL SELECT 0, priority, id, turn, attempt FROM probing
        ) AS shares
    ), chosen AS MATERIALIZED (
        SELECT * FROM found
        WHERE claim_rank = 1 OR attempt = 0 AND (SELECT attempt FROM found WHERE claim_rank = 1) = 0
    ), counted AS MATERIALIZED (
        SELECT count(*) > 1 AS in_group, (SELECT count(*) FROM found) - count(*) AS passed_over,
            coalesce(max(turn / 2) FILTER (WHERE priority = 'default'), 0) AS round_default,
            coalesce(max(turn / 2) FILTER (WHERE priority = 'low'), 0) AS round_low
        FROM chosen
    ), reached AS (
        INSERT INTO routes (route, round_default, round_low)
        SELECT :route, round_default, round_low FROM counted WHERE EXISTS (SELECT FROM chosen)
        ON CONFLICT (route) DO UPDATE SET
            round_default = greatest(routes.round_default, excluded.round_default),
            round_low = greatest(routes.round_low, excluded.round_low),
            paused_until = CASE WHEN EXISTS (SELECT FROM probe) THEN now() + :lease ELSE routes.paused_until END
        WHERE routes.round_default < excluded.round_default OR routes.round_low < excluded.round_low
            OR EXISTS (SELECT FROM probe)
    )
"""  # noqa: S608  # nosec B608

_UPDATE = """
    UPDATE prompts
    SET status = 'processing', attempt = prompts.attempt + 1, due_at = now() + :lease,
        attempt_limit = attempt_limit + CASE WHEN in_group THEN 1 ELSE 0 END
    FROM chosen, counted, users
    WHERE prompts.id = chosen.id AND users.id = prompts.user_id
"""


def _columns(is_limited: str) -> str:
    """The columns of a claimed prompt, the fields of `Claim` behind its rank."""
    return f"""
        claim_rank, prompts.id, prompts.attempt,
        prompts.attempt >= attempt_limit - CASE WHEN in_group THEN 1 ELSE 0 END AS final, user_id, prompt_text,
        websocket, request_id, embedder, cache, history, queued_at, traceparent, clock_timestamp() AS claimed_at,
        {is_limited} AS is_limited, in_group, CASE WHEN EXISTS (SELECT FROM probe) THEN now() + :lease END AS probe,
        key_id, prompts.route, request, request_hash, prompts.priority
    """  # nosec B608


#: Claims prompts of a route without a limit, and nothing of a limited one.
CLAIM = PreparedStatement(
    "claim",
    f"""
    WITH probe AS MATERIALIZED (
        SELECT FROM routes
        WHERE route = :route AND paused_until <= now() AND concurrency IS NULL
        FOR NO KEY UPDATE
    ), wanted AS MATERIALIZED (
        SELECT CASE
            WHEN EXISTS (SELECT FROM probe) THEN 0
            WHEN EXISTS (
                SELECT FROM routes WHERE route = :route AND (paused_until IS NOT NULL OR concurrency IS NOT NULL)
            ) THEN 0
            ELSE :size
        END AS size, :low_share AS low_share
    ), {_CHOOSE}
    {_UPDATE} RETURNING passed_over, false AS limited, 0 AS ready, {_columns("false")}
    """,  # noqa: S608  # nosec B608
    _TYPES,
    first=_NO_WAIT,
)

#: Claims as many prompts of a route as it has free slots. If these are fewer than :size, low priority gets the same
#: share of them. There is always a row, without a prompt if none was claimed.
CLAIM_WITHIN_LIMIT = PreparedStatement(
    "claim_within_limit",
    f"""
    WITH free AS MATERIALIZED (
        SELECT slots IS NOT NULL AS limited,
            CASE WHEN slots IS NULL THEN :size ELSE greatest(slots - {RUNNING}, 0) END AS slots
        FROM (SELECT {LIMIT} AS slots) AS route
    ), probe AS MATERIALIZED (
        SELECT FROM routes
        WHERE route = :route AND paused_until <= now() AND (SELECT slots FROM free) > 0
        FOR NO KEY UPDATE
    ), wanted AS MATERIALIZED (
        SELECT size, CASE
            WHEN size < :size THEN CAST(floor(CAST(:low_share AS float) * size / :size + random()) AS bigint)
            ELSE :low_share
        END AS low_share
        FROM (
            SELECT CASE
                WHEN EXISTS (SELECT FROM probe) THEN 0
                WHEN EXISTS (SELECT FROM routes WHERE route = :route AND paused_until IS NOT NULL) THEN 0
                ELSE least(:size, (SELECT slots FROM free))
            END AS size
        ) AS sized
    ), {_CHOOSE}, claimed AS (
        {_UPDATE} RETURNING {_columns("(SELECT limited FROM free)")}
    )
    SELECT passed_over, limited, CASE WHEN limited AND (SELECT size FROM wanted) > 0 THEN (
            SELECT count(*) FROM (
                SELECT FROM prompts
                WHERE route = :route AND {CLAIMABLE} AND id <> ALL(ARRAY(SELECT id FROM chosen))
                ORDER BY priority, turn, id
                LIMIT least((SELECT slots FROM free) - (SELECT count(*) FROM chosen), {MAX_READY})
            ) AS ready
        ) ELSE 0 END AS ready, claimed.*
    FROM counted CROSS JOIN free LEFT JOIN claimed ON true
    """,  # noqa: S608  # nosec B608
    {**_TYPES, "ceiling": "bigint"},
    first=f"{_NO_WAIT} {LOCK_SLOTS};",
)

SETTLE_TYPES = {
    "id": "bigint",
    "attempt": "bigint",
    "user_id": "bigint",
    "key_id": "bigint",
    "route": "text",
    **dict(zip(Used._fields, ("bigint", "bigint", "numeric"), strict=True)),
}
#: Records what attempts used that have ended, each once, also if their prompts or users were deleted meanwhile, and
#: releases what they reserved.
SETTLE = f"""
    WITH ended AS (
        SELECT * FROM {unnest(SETTLE_TYPES)} AS ended({", ".join(SETTLE_TYPES)})
    ), released AS (
        DELETE FROM abandoned_attempts AS abandoned USING ended
        WHERE prompt_id = ended.id AND abandoned.attempt = ended.attempt
    ), used AS (
        SELECT * FROM ended WHERE used_prompt_tokens + used_completion_tokens > 0
    ), locked AS MATERIALIZED (
        SELECT id, settled_attempt FROM prompts WHERE id IN (SELECT id FROM used) ORDER BY id FOR NO KEY UPDATE
    ), unsettled AS (
        SELECT used.*
        FROM used JOIN users ON users.id = user_id LEFT JOIN locked ON locked.id = used.id
        WHERE coalesce(settled_attempt, 0) < attempt
    ), settled AS (
        UPDATE prompts
        SET used_prompt_tokens = prompts.used_prompt_tokens + unsettled.used_prompt_tokens,
            used_completion_tokens = prompts.used_completion_tokens + unsettled.used_completion_tokens,
            settled_attempt = unsettled.attempt
        FROM unsettled
        WHERE prompts.id = unsettled.id
    )
    {add_to_ledger("unsettled", at="clock_timestamp()", prompts=0)}
"""  # noqa: S608  # nosec B608
