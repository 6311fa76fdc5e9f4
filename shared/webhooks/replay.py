"""Sending to a webhook because its user asks for it: a test, an event again, or all events after one.

Delivery itself is the workers' part (`worker/webhooks`). Each function takes the webhook's lock first, as these do.
"""

from typing import Any

from sqlalchemy import exists, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.db.engine import Sessions
from shared.db.models import Batch, DeliveryStatus, FeedEntry, Prompt, Webhook, WebhookDelivery
from shared.errors import (
    DeliveryNotFoundError,
    DeliveryPendingError,
    EventNotKeptError,
    SinceOutOfRangeError,
    WebhookDisabledError,
)
from shared.prompts import feed
from shared.webhooks import events, webhooks
from shared.webhooks.events import EventType
from shared.webhooks.webhooks import RESUMED

#: How many numbers of a feed a transaction recovers. A longer recovery takes several, in the order of the feed.
RECOVERED_AT_ONCE = 2_000

# The events of a feed. Lines of batches have none: the batch has one.
_PROMPT_EVENTS = (
    select((literal("prompt.") + FeedEntry.change).label("event"), FeedEntry.seq, FeedEntry.prompt_id)
    .join(Prompt, Prompt.id == FeedEntry.prompt_id)
    .where(Prompt.batch_id.is_(None))
)
_BATCH_EVENTS = select((literal("batch.") + Batch.status).label("event"), FeedEntry.seq, FeedEntry.batch_id).join(
    Batch, Batch.id == FeedEntry.batch_id
)
_PENDING_AGAIN: dict[str, Any] = {
    "status": DeliveryStatus.PENDING,
    "attempts": 0,
    "next_attempt_at": func.now(),
    "created_at": func.now(),
    "ended_at": None,
}


def send_test(session: Session, user_id: int, webhook_id: int) -> WebhookDelivery:
    """Add a test event.

    Raises:
        WebhookNotFoundError: the webhook does not exist, or belongs to another user.
        WebhookDisabledError: it is disabled.
        DeliveryPendingError: the test event before is still pending.
    """
    _resume(session, user_id, webhook_id)
    tests = select(WebhookDelivery.id).where(
        WebhookDelivery.webhook_id == webhook_id,
        WebhookDelivery.seq.is_(None),
        WebhookDelivery.event == events.TEST,
        WebhookDelivery.status == DeliveryStatus.PENDING,
    )
    if session.scalar(tests.limit(1)) is not None:
        raise DeliveryPendingError("A test event is still pending for this webhook.")
    delivery = WebhookDelivery(webhook_id=webhook_id, event=events.TEST)
    session.add(delivery)
    session.flush()
    return delivery


def replay(session: Session, user_id: int, webhook_id: int, delivery_id: int) -> WebhookDelivery:
    """Make a delivery that has ended pending again.

    Raises:
        WebhookNotFoundError, DeliveryNotFoundError: it does not exist, or belongs to another user.
        WebhookDisabledError: the webhook is disabled.
        DeliveryPendingError: it is pending.
        EventNotKeptError: there is nothing left to send.
    """
    webhook = _resume(session, user_id, webhook_id)
    one = (WebhookDelivery.id == delivery_id, WebhookDelivery.webhook_id == webhook_id)
    delivery = session.scalar(select(WebhookDelivery).where(*one).with_for_update(key_share=True))
    if delivery is None:
        raise DeliveryNotFoundError
    if delivery.status == DeliveryStatus.PENDING:
        raise DeliveryPendingError
    is_prompt = delivery.event != events.TEST and delivery.batch_id is None
    if is_prompt and not _is_kept(session, webhook.user_id, delivery):
        raise EventNotKeptError
    changed = update(WebhookDelivery).where(*one).values(_PENDING_AGAIN).returning(WebhookDelivery)
    return session.scalars(changed, execution_options={"populate_existing": True}).one()


def recover(sessions: Sessions, user_id: int, webhook_id: int, since: int) -> int:
    """Make every event after `since` pending again, with a delivery for those that have none. Returns their number.

    Events that the webhook did not ask for are left out, and those of deleted prompts. Each RECOVERED_AT_ONCE numbers
    of the feed are a transaction; if one fails, the call can be repeated.

    Raises:
        WebhookNotFoundError: the webhook does not exist, or belongs to another user.
        WebhookDisabledError: it is disabled.
        SinceOutOfRangeError: the feed no longer has all events after `since`, or has not got that far.
    """
    with sessions.begin() as session:
        _resume(session, user_id, webhook_id)
        newest = _check_since(session, user_id, since)
    count = 0
    for after in range(since, newest, RECOVERED_AT_ONCE):
        with sessions.begin() as session:
            webhook = _enabled(session, user_id, webhook_id)
            count += _recover_some(session, webhook, after, min(after + RECOVERED_AT_ONCE, newest))
    return count


def _recover_some(session: Session, webhook: Webhook, after: int, upto: int) -> int:
    """Make the events after a number, up to another one, pending again. Returns how many these are.

    A delivery that exists is kept, with its log, so that there is one for each event. An event that happens meanwhile
    gets no second one: it is committed together with its entry in the feed.
    """
    wanted_events = webhook.events or list(EventType)
    count = 0
    for events_of in (_PROMPT_EVENTS, _BATCH_EVENTS):
        within = (FeedEntry.user_id == webhook.user_id, FeedEntry.seq > after, FeedEntry.seq <= upto)
        found = events_of.where(*within).order_by(FeedEntry.seq).subquery()
        wanted = select(literal(webhook.id), *found.c).where(found.c.event.in_(wanted_events))
        added = upsert(WebhookDelivery).from_select(["webhook_id", *found.c.keys()], wanted)
        recovered = added.on_conflict_do_update(index_elements=["webhook_id", "seq"], set_=_PENDING_AGAIN)
        count += session.execute(recovered).rowcount  # type: ignore[attr-defined]
    return count


def _enabled(session: Session, user_id: int, webhook_id: int) -> Webhook:
    webhook = webhooks.get(session, user_id, webhook_id, lock=True)
    if webhook.disabled_at is not None:
        raise WebhookDisabledError
    return webhook


def _resume(session: Session, user_id: int, webhook_id: int) -> Webhook:
    """The webhook, whose pause is ended."""
    webhook = _enabled(session, user_id, webhook_id)
    for name, value in RESUMED.items():
        setattr(webhook, name, value)
    return webhook


def _is_kept(session: Session, user_id: int, delivery: WebhookDelivery) -> bool:
    """Whether the prompt exists, and the feed or the prompt itself shows how it was at that number."""
    entry = exists().where(FeedEntry.user_id == user_id, FeedEntry.seq == delivery.seq)
    prompt = select(Prompt.id).where(Prompt.id == delivery.prompt_id, or_(Prompt.seq == delivery.seq, entry))
    return session.scalar(prompt) is not None


def _check_since(session: Session, user_id: int, since: int) -> int:
    """The newest number of the user's feed.

    Raises:
        SinceOutOfRangeError: the feed does not have all events after `since`.
    """
    newest, is_complete = feed.position(session, user_id, since)
    if since > newest:
        raise SinceOutOfRangeError(f"There is no event {since} yet: your newest is {newest}.")
    if not is_complete:
        oldest = session.scalar(select(func.min(FeedEntry.seq)).where(FeedEntry.user_id == user_id))
        before = newest if oldest is None else oldest - 1
        raise SinceOutOfRangeError(
            f"Events up to {before} are no longer kept. Recover since {before}; GET /prompts/ has the prompts before."
        )
    return newest
