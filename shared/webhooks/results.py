"""Recording what became of deliveries, and deleting the log of them."""

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
    """An endpoint after its last delivery."""

    failures: int  #: in succession
    pause_seconds: float | None = None
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

# A replay may count a delivery's attempts again from 0, and the log goes on.
_RECORD = text(f"""
    WITH result AS (
        SELECT * FROM {unnest(_RESULT)} AS result({", ".join(_RESULT)})
    ), held AS (
        SELECT id FROM webhooks
        WHERE id = ANY(ARRAY(SELECT webhook_id FROM result)) AND leased_by = :owner
        ORDER BY id
        FOR NO KEY UPDATE
    ), changed AS (
        UPDATE webhook_deliveries
        SET status = result.status, attempts = attempts + 1,
            next_attempt_at = next_attempt_at + make_interval(secs => 0),
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
""".replace(
    "next_attempt_at + make_interval(secs => 0)",
    "CASE WHEN wait_seconds > 0 THEN clock_timestamp() + make_interval(secs => wait_seconds) ELSE next_attempt_at END",
))  # noqa: S608  # nosec B608
