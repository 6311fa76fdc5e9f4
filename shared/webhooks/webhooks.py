"""A user's webhooks. Each step is one function, and its caller commits; `delete` alone commits by itself.

Lock order: prompts, users, webhooks, their deliveries.
"""

import base64
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session

from shared.accounts import audit
from shared.accounts.audit import Actor
from shared.db.engine import Sessions
from shared.db.models import User, Webhook, WebhookDelivery
from shared.errors import InvalidTokenError, TooManyWebhooksError, WebhookNotFoundError

MAX_WEBHOOKS = 20
#: For how long the secret before a rotation signs, too.
ROTATION_PERIOD = timedelta(hours=24)
#: How many deliveries a transaction deletes at most. Their attempts go with them.
DELETED_AT_ONCE = 2_000

_SECRET_BYTES = 32
_SECRET_PREFIX = "whsec_"  # noqa: S105  # nosec B105
#: The values that end an endpoint's pause: it is tried at once.
RESUMED: dict[str, Any] = {"paused_until": None, "failures": 0}
#: It also takes the lease from a host that sends to the endpoint as it was: the outcome of that no longer counts.
_RENEWED: dict[str, Any] = {"leased_until": None, "leased_by": None, **RESUMED}
_ENABLED: dict[str, Any] = {"disabled_at": None, "disabled_reason": None, **_RENEWED}
_DISABLED: dict[str, Any] = {
    "disabled_at": func.coalesce(Webhook.disabled_at, func.now()),
    "disabled_reason": func.coalesce(Webhook.disabled_reason, "You have disabled it."),
}


def format_secret(secret: bytes) -> str:
    """A secret as its user gets it, in the form of the Standard Webhooks specification."""
    return _SECRET_PREFIX + base64.b64encode(secret).decode()


def create(
    session: Session, user_id: int, url: str, *, events: Sequence[str] | None = None, description: str = ""
) -> Webhook:
    """Add a webhook, for all events by default. `url` is one that `addresses.check_url` accepts.

    Raises:
        TooManyWebhooksError: the user has as many as a user may have.
        InvalidTokenError: the user was deleted meanwhile.
    """
    # The lock keeps the limit exact while the user adds several at a time.
    owner = select(User.id).where(User.id == user_id, User.deleted_at.is_(None)).with_for_update(key_share=True)
    if session.scalar(owner) is None:
        raise InvalidTokenError("This account was deleted.")
    if len(list_all(session, user_id)) >= MAX_WEBHOOKS:
        raise TooManyWebhooksError(
            f"You have {MAX_WEBHOOKS} webhooks, the most that a user may have. Delete one first."
        )
    webhook = Webhook(user_id=user_id, url=url, events=events, description=description, secret=_new_secret())
    session.add(webhook)
    session.flush()
    return webhook


def list_all(session: Session, user_id: int) -> Sequence[Webhook]:
    """The user's webhooks, oldest first."""
    return session.scalars(select(Webhook).where(Webhook.user_id == user_id).order_by(Webhook.id)).all()


def get(session: Session, user_id: int, webhook_id: int, *, lock: bool = False) -> Webhook:
    """The user's webhook, with `lock` locked until the commit.

    Raises:
        WebhookNotFoundError: it does not exist, or belongs to another user.
    """
    query = select(Webhook).where(_one(user_id, webhook_id))
    return _found(session.scalar(query.with_for_update(key_share=True) if lock else query))


def change(session: Session, user_id: int, webhook_id: int, changes: Mapping[str, Any]) -> Webhook:
    """Change the `url`, `events` or `description`, or whether it is `disabled`. Returns the changed webhook.

    A webhook that is enabled, or gets another URL, is tried at once.

    Raises:
        WebhookNotFoundError: it does not exist, or belongs to another user.
    """
    values = dict(changes)
    is_disabled = values.pop("disabled", None)
    if is_disabled is not None:
        values |= _DISABLED if is_disabled else _ENABLED
    if "url" in changes:
        values |= _RENEWED
    return _update(session, user_id, webhook_id, values) if values else get(session, user_id, webhook_id)


def rotate(session: Session, user_id: int, webhook_id: int) -> Webhook:
    """Give it a new secret. The one before signs, too, for the ROTATION_PERIOD; an older one does not any more.

    Raises:
        WebhookNotFoundError: it does not exist, or belongs to another user.
    """
    values = {
        "secret": _new_secret(),
        "previous_secret": Webhook.secret,
        "previous_secret_expires_at": func.now() + ROTATION_PERIOD,
    }
    return _update(session, user_id, webhook_id, values)


def delete(sessions: Sessions, actor: Actor, user_id: int, webhook_id: int) -> None:
    """Delete a webhook with its deliveries, pending or not, and record that in the audit trail.

    A webhook with many deliveries takes several transactions; the first one disables it.

    Raises:
        WebhookNotFoundError: it does not exist, or belongs to another user.
    """
    is_deleted = False
    while not is_deleted:
        with sessions.begin() as session:
            is_deleted = _delete_some(session, user_id, webhook_id)
            if is_deleted:
                audit.record(session, actor, "webhook.deleted", user_id, webhook_id=webhook_id)


def _delete_some(session: Session, user_id: int, webhook_id: int) -> bool:
    """Delete some of the deliveries, and the webhook if none is left. Returns whether it is deleted."""
    webhook = _update(session, user_id, webhook_id, _DISABLED)
    ids = select(WebhookDelivery.id).where(WebhookDelivery.webhook_id == webhook_id).order_by(WebhookDelivery.id)
    # As an array: PostgreSQL might join the table with a subquery by reading all of it, for each of many batches.
    some = func.array(ids.limit(DELETED_AT_ONCE).scalar_subquery())
    deleted = session.execute(delete_from(WebhookDelivery).where(WebhookDelivery.id == func.any(some)))
    if deleted.rowcount == DELETED_AT_ONCE:  # type: ignore[attr-defined]
        return False
    session.delete(webhook)
    return True


def _update(session: Session, user_id: int, webhook_id: int, values: dict[str, Any]) -> Webhook:
    changed = update(Webhook).where(_one(user_id, webhook_id)).values(values).returning(Webhook)
    return _found(session.scalar(changed, execution_options={"populate_existing": True}))


def _one(user_id: int, webhook_id: int) -> ColumnElement[bool]:
    return and_(Webhook.id == webhook_id, Webhook.user_id == user_id)


def _found(webhook: Webhook | None) -> Webhook:
    if webhook is None:
        raise WebhookNotFoundError
    return webhook


def _new_secret() -> bytes:
    return secrets.token_bytes(_SECRET_BYTES)
