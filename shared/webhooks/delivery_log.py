"""What was sent to a webhook, and the results: its deliveries with their attempts."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from shared.db.models import DeliveryStatus, WebhookAttempt, WebhookDelivery

#: How many attempts of a delivery are shown: its newest ones.
MAX_ATTEMPTS = 20


class LoggedDelivery(NamedTuple):
    """A delivery and its newest attempts, oldest first."""

    delivery: WebhookDelivery
    attempts: list[WebhookAttempt]


def page(
    session: Session, webhook_id: int, *, limit: int, status: DeliveryStatus | None = None, before: int | None = None
) -> list[LoggedDelivery]:
    """At most `limit` deliveries of the webhook, newest first, of one status, with ids below `before`."""
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if status is not None:
        query = query.where(WebhookDelivery.status == status)
    if before is not None:
        query = query.where(WebhookDelivery.id < before)
    return with_attempts(session, session.scalars(query.order_by(WebhookDelivery.id.desc()).limit(limit)).all())


def with_attempts(session: Session, deliveries: Sequence[WebhookDelivery]) -> list[LoggedDelivery]:
    """The deliveries, each with its newest attempts."""
    newest_first = func.row_number().over(
        partition_by=WebhookAttempt.delivery_id, order_by=WebhookAttempt.number.desc()
    )
    ids = [delivery.id for delivery in deliveries]
    ranked = select(WebhookAttempt, newest_first.label("rank")).where(WebhookAttempt.delivery_id.in_(ids)).subquery()
    attempt = aliased(WebhookAttempt, ranked)
    found: dict[int, list[WebhookAttempt]] = defaultdict(list)
    for each in session.scalars(select(attempt).where(ranked.c.rank <= MAX_ATTEMPTS).order_by(attempt.number)):
        found[each.delivery_id].append(each)
    return [LoggedDelivery(delivery, found[delivery.id]) for delivery in deliveries]
