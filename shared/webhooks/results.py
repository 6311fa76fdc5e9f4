"""Recording the results of deliveries, and deleting their log."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import text

from shared.db.arrays import array_parameters, unnest
from shared.db.engine import Executor
from shared.webhooks import schedule

#: Why an endpoint that answered 410 is disabled.
GONE = "The endpoint answered 410 Gone."
#: How many deliveries one statement gives up or deletes.
MAX_CHANGES = 10_000


class Result(NamedTuple):
    """An attempt at a delivery, and what follows from it."""

    webhook_id: int
    delivery_id: int
    status: str  #: a DeliveryStatus: pending if it is tried again
    at: datetime
    seconds: float
    status_code: int | None = None  #: of the response
    error: str | None = None
    wait_seconds: float = 0.0  #: the delivery's own wait, while others are sent


class EndpointState(NamedTuple):
    """How an endpoint has changed."""

    failures: int | None = None  #: in succession; None if these and the pause are unchanged
    pause_seconds: float | None = None  #: without one, it is not paused
    disabled_reason: str | None = None
    is_released: bool = False  #: whether other hosts may deliver to it now


_RESULT = {
    "webhook_id": "bigint",
    "delivery_id": "bigint",
    "status": "text",
    "at": "timestamptz",
    "seconds": "double precision",
    "status_code": "bigint",
    "error": "text",
    "wait_seconds": "double precision",
}
_STATE = {
    "id": "bigint",
    "failures": "bigint",
    "pause_seconds": "double precision",
    "disabled_reason": "text",
    "is_released": "boolean",
}


def _held(ids: str) -> str:
    """The SQL of those of the webhooks in the parameter `ids` that :owner has leased, locked until the commit."""
    return f"""
        SELECT id FROM webhooks
        WHERE id = ANY(CAST(:{ids} AS bigint[])) AND leased_by = :owner
        ORDER BY id
        FOR NO KEY UPDATE
    """  # noqa: S608  # nosec B608


# A replay counts a delivery's attempts from 0 again; its log continues.
_RECORD = text(f"""
    WITH result AS (
        SELECT * FROM {unnest(_RESULT)} AS result({", ".join(_RESULT)})
    ), held AS (
        {_held("webhook_id")}
    ), changed AS (
        UPDATE webhook_deliveries
        SET status = result.status, attempts = attempts + 1,
            next_attempt_at = CASE
                WHEN wait_seconds > 0 THEN clock_timestamp() + make_interval(secs => wait_seconds)
                ELSE next_attempt_at
            END,
            ended_at = CASE WHEN result.status <> 'pending' THEN clock_timestamp() END
        FROM result JOIN held ON held.id = result.webhook_id
        WHERE webhook_deliveries.id = result.delivery_id AND webhook_deliveries.webhook_id = held.id
            AND webhook_deliveries.status = 'pending'
        RETURNING result.*
    )
    INSERT INTO webhook_attempts (delivery_id, number, at, status_code, error, seconds)
    SELECT delivery_id, number, at, status_code, error, seconds
    FROM changed CROSS JOIN LATERAL (
        SELECT coalesce(max(number), 0) + 1 AS number FROM webhook_attempts
        WHERE webhook_attempts.delivery_id = changed.delivery_id
    ) AS next
""")  # noqa: S608  # nosec B608
_SET_STATE = text(f"""
    WITH state AS (
        SELECT * FROM {unnest(_STATE)} AS state({", ".join(_STATE)})
    ), held AS (
        {_held("id")}
    )
    UPDATE webhooks
    SET failures = coalesce(state.failures, webhooks.failures),
        paused_until = CASE
            WHEN state.failures IS NULL THEN paused_until
            ELSE clock_timestamp() + make_interval(secs => pause_seconds)
        END,
        disabled_at = CASE WHEN state.disabled_reason IS NULL THEN disabled_at ELSE clock_timestamp() END,
        disabled_reason = coalesce(state.disabled_reason, webhooks.disabled_reason),
        leased_until = CASE WHEN is_released THEN NULL ELSE leased_until END,
        leased_by = CASE WHEN is_released THEN NULL ELSE leased_by END
    FROM state JOIN held USING (id)
    WHERE webhooks.id = state.id
""")  # noqa: S608  # nosec B608
# Deliveries of an endpoint that answered 410, and those that have waited for the whole schedule while their endpoint
# failed each time: the deliveries before them were tried instead.
_GIVE_UP = text("""
    UPDATE webhook_deliveries SET status = 'failed', ended_at = clock_timestamp()
    WHERE id = ANY(ARRAY(
        SELECT webhook_deliveries.id
        FROM webhooks JOIN webhook_deliveries ON webhook_id = webhooks.id AND status = 'pending'
        WHERE (disabled_at IS NOT NULL AND disabled_reason = :gone)
            OR (failures >= :max_attempts AND webhook_deliveries.created_at < now() - CAST(:whole AS interval))
        LIMIT :limit
    )) AND status = 'pending'
""")
_PURGE = text("""
    DELETE FROM webhook_deliveries WHERE id = ANY(ARRAY(
        SELECT id FROM webhook_deliveries WHERE created_at < now() - CAST(:retention AS interval) LIMIT :limit
    ))
""")


def record(executor: Executor, owner: str, results: Sequence[Result], states: Mapping[int, EndpointState]) -> None:
    """Record attempts, and the states of endpoints by their ids; only of endpoints that this host has leased.

    If another host has leased an endpoint by now, it has the deliveries, too: they are sent once more.
    """
    if results:
        executor.execute(_RECORD, {"owner": owner, **array_parameters(_RESULT, results)})
    if states:
        rows = [(webhook_id, *state) for webhook_id, state in states.items()]
        executor.execute(_SET_STATE, {"owner": owner, **array_parameters(_STATE, rows)})


def give_up(executor: Executor) -> int:
    """Fail pending deliveries that are not tried any more, MAX_CHANGES at a time. Returns how many."""
    parameters = {"gone": GONE, "max_attempts": schedule.MAX_ATTEMPTS, "whole": schedule.WHOLE, "limit": MAX_CHANGES}
    return executor.execute(_GIVE_UP, parameters).rowcount  # type: ignore[attr-defined, no-any-return]


def purge(executor: Executor, retention: timedelta) -> int:
    """Delete deliveries older than the retention, with their attempts, MAX_CHANGES at a time. Returns how many."""
    deleted = executor.execute(_PURGE, {"retention": retention, "limit": MAX_CHANGES})
    return deleted.rowcount  # type: ignore[attr-defined, no-any-return]
