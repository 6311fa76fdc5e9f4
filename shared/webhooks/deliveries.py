"""What workers deliver: due endpoints, leased to one worker host at a time, and the pending deliveries of each.

The results of deliveries are in `results.py`. All times are the database's.

Lock order: webhooks, then their deliveries. Both come after prompts and users.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row, text

from shared.batches.ended_event import EVENT_DATA, EndedBatch
from shared.db.engine import Executor
from shared.prompts.queries import COLUMNS, PromptRow
from shared.prompts.sizes import PROMPT_BYTES
from shared.webhooks import events
from shared.webhooks.events import Event, EventType

#: A host holds an endpoint for this long after it has read a batch. It is longer than sending one can take.
LEASE = timedelta(seconds=30)
#: The most deliveries, and bytes of texts, of a batch. It has at least two deliveries if two are pending: the second
#: shows whether an endpoint that refuses the first refuses everything.
MAX_DELIVERIES = 50
#: The first batch is small: what it holds lies in memory while an endpoint that is down is waited for.
FIRST_DELIVERIES = 2
MAX_BYTES = 256 * 1024


class Delivery(NamedTuple):
    """A pending delivery. `event` is None if it cannot be sent any more, because its prompt was deleted."""

    id: int
    attempts: int  #: that failed
    event: Event | None


class Batch(NamedTuple):
    """The next deliveries of an endpoint, in the order of `seq`, and what is needed to send them."""

    read_at: datetime
    url: str
    keys: Sequence[bytes]  #: for signing, the newest first
    failures: int  #: of the endpoint, in succession
    deliveries: Sequence[Delivery]
    has_more: bool


_READY = """
    disabled_at IS NULL AND (paused_until IS NULL OR paused_until <= now())
        AND (leased_until IS NULL OR leased_until <= now()) AND (failures = 0 OR NOT :only_healthy)
        AND id <> ALL(CAST(:served AS bigint[]))
"""
# The recursion reads one entry of the index `webhook_deliveries_due` for each endpoint with pending deliveries, however
# many those are: PostgreSQL's "loose index scan" (https://wiki.postgresql.org/wiki/Loose_indexscan).
#
# Users take turns, so one with many endpoints delays nobody. Rows cannot be ranked and locked at the same level.
_CLAIM = text(f"""
    WITH RECURSIVE pending AS (
        (
            SELECT webhook_id, next_attempt_at FROM webhook_deliveries
            WHERE status = 'pending' ORDER BY webhook_id, next_attempt_at LIMIT 1
        )
        UNION ALL
        SELECT next.webhook_id, next.next_attempt_at
        FROM pending CROSS JOIN LATERAL (
            SELECT webhook_id, next_attempt_at FROM webhook_deliveries
            WHERE status = 'pending' AND webhook_id > pending.webhook_id ORDER BY webhook_id, next_attempt_at LIMIT 1
        ) AS next
    ), ready AS (
        SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY failures > 0, random()) AS turn
        FROM webhooks JOIN pending ON pending.webhook_id = webhooks.id
        WHERE next_attempt_at <= now() AND {_READY}
    ), due AS (
        SELECT id FROM webhooks JOIN ready USING (id)
        WHERE {_READY}
        ORDER BY failures > 0, turn, random()
        LIMIT :limit
        FOR NO KEY UPDATE OF webhooks SKIP LOCKED
    )
    UPDATE webhooks SET leased_until = clock_timestamp() + :lease, leased_by = :owner
    FROM due WHERE webhooks.id = due.id
    RETURNING webhooks.id
""")  # noqa: S608  # nosec B608

_PROMPT = ", ".join(f"prompts.{column.name}" for column in COLUMNS)
# Without a sort PostgreSQL reads the first entries of `webhook_deliveries_pending`, which are in order. With statistics
# from before a backlog it would read all that is pending by another index.
#
# It adds up the sizes before it reads the texts, as in `feed.read`. A feed may have been emptied by a restore
# (`shared/db/restored.py`): then the prompt itself is read, if it has not been retried.
_READ = text(f"""
    SET LOCAL enable_sort = off;
    WITH held AS (
        UPDATE webhooks SET leased_until = clock_timestamp() + :lease
        WHERE id = :webhook_id AND leased_by = :owner AND disabled_at IS NULL
        RETURNING id, user_id, url, secret, failures,
            CASE WHEN previous_secret_expires_at > now() THEN previous_secret END AS previous_secret
    ), next AS (
        SELECT id, event, seq, prompt_id, batch_id, attempts, created_at FROM webhook_deliveries
        WHERE webhook_id = :webhook_id AND status = 'pending' AND next_attempt_at <= now()
        ORDER BY seq NULLS FIRST, id
        LIMIT :limit
    ), sized AS (
        SELECT next.*, row_number() OVER in_order AS rank, count(*) OVER () AS total,
            sum({PROMPT_BYTES}) OVER in_order AS bytes
        FROM next LEFT JOIN prompts ON prompts.id = next.prompt_id
        WINDOW in_order AS (ORDER BY next.seq NULLS FIRST, next.id)
    )
    SELECT {_PROMPT}, clock_timestamp() AS read_at, url, secret, previous_secret, failures, total,
        sized.id AS delivery_id, sized.event, sized.seq AS event_seq, sized.attempts, sized.created_at AS delivery_at,
        users.username, coalesce(feed.at, prompts.completed_at) AS at,
        CASE WHEN feed.seq IS NULL THEN prompts.error ELSE feed.error END AS event_error,
        prompts.id IS NOT NULL AND (feed.seq IS NOT NULL OR prompts.seq = sized.seq) AS is_kept,
        {EVENT_DATA} AS batch
    FROM sized CROSS JOIN held JOIN users ON users.id = held.user_id
        LEFT JOIN feed ON feed.user_id = held.user_id AND feed.seq = sized.seq
        LEFT JOIN prompts ON prompts.id = sized.prompt_id AND prompts.user_id = held.user_id
        LEFT JOIN batches ON batches.id = sized.batch_id AND batches.user_id = held.user_id
    WHERE bytes <= :max_bytes OR rank <= 2
    ORDER BY rank
""")  # noqa: S608  # nosec B608


def claim(
    executor: Executor, owner: str, *, limit: int, only_healthy: bool = False, served: Collection[int] = ()
) -> list[int]:
    """Lease endpoints that have something to deliver now. Returns their ids, those first that have not failed.

    Args:
        owner: The name of this worker host, and of this start of it.
        only_healthy: Whether to leave out endpoints whose last delivery has failed.
        served: Endpoints to leave out: those that the host still sends to, though it may have lost their leases.
    """
    parameters = {"owner": owner, "limit": limit, "only_healthy": only_healthy, "served": list(served), "lease": LEASE}
    return list(executor.execute(_CLAIM, parameters).scalars())


def read(executor: Executor, owner: str, webhook_id: int, limit: int = MAX_DELIVERIES) -> Batch | None:
    """Renew the lease of an endpoint, and read its next deliveries, `limit` at most.

    None if there are none, or if this host may no longer deliver to it.
    """
    parameters = {"owner": owner, "webhook_id": webhook_id, "lease": LEASE}
    limits = {"limit": limit, "max_bytes": MAX_BYTES}
    rows = executor.execute(_READ, parameters | limits).all()
    if not rows:
        return None
    first = rows[0]
    return Batch(
        read_at=first.read_at,
        url=first.url,
        keys=[bytes(key) for key in (first.secret, first.previous_secret) if key is not None],
        failures=first.failures,
        deliveries=[Delivery(row.delivery_id, row.attempts, _event(webhook_id, row)) for row in rows],
        has_more=first.total == limit or first.total > len(rows),
    )


def _event(webhook_id: int, row: Row[Any]) -> Event | None:
    message_id = events.message_id(webhook_id, row.event, row.event_seq, row.delivery_id)
    if row.event == events.TEST:
        return events.from_test(message_id, webhook_id, row.delivery_at)
    if row.batch is not None and row.event == EventType.BATCH_PROGRESS:
        return events.from_progress(message_id, row.batch, row.read_at)
    if row.batch is not None:
        return events.from_batch(message_id, EndedBatch(row.event_seq, row.at or row.delivery_at, row.batch))
    if not row.is_kept:
        return None
    prompt = PromptRow.from_row(row[: len(COLUMNS)])
    return events.from_prompt(
        message_id, row.event, row.event_seq, prompt, row.username, at=row.at, error=row.event_error
    )
