"""Webhooks, the deliveries of events to them, and the attempts at these."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Identity, Index, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.models.base import Base


class Webhook(Base):
    """An endpoint of a user, to which events are sent. One worker at a time delivers to it, in the order of `seq`."""

    __tablename__ = "webhooks"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    url: Mapped[str]
    #: The types of the events that it gets, as `prompt.completed`; NULL for all but `batch.progress`.
    events: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    description: Mapped[str] = mapped_column(server_default="")
    #: The key of the signatures, and the one before it, which signs, too, until it expires.
    secret: Mapped[bytes]
    previous_secret: Mapped[bytes | None]
    previous_secret_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: While it is disabled, its events are not delivered. Why, as its user sees it.
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    #: No delivery before this time, because the last ones failed; how many in succession.
    paused_until: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    #: The end of the lease of the worker host that delivers to it, and the name of that.
    leased_until: Mapped[datetime | None]
    leased_by: Mapped[str | None]


class DeliveryStatus(StrEnum):
    """The status of a delivery: pending → delivered | failed. A replay makes it pending again."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"  # given up


_PENDING = text("status = 'pending'")


class WebhookDelivery(Base):
    """An event for an endpoint. It is inserted by the transaction that finishes the prompt."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    webhook_id: Mapped[int] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    #: As `prompt.completed`.
    event: Mapped[str]
    #: The event's number in the user's feed, and its prompt; NULL for a test event. Progress has no number.
    seq: Mapped[int | None]
    prompt_id: Mapped[int | None]
    #: The batch of the event, if it is about one.
    batch_id: Mapped[int | None]
    status: Mapped[str] = mapped_column(server_default=DeliveryStatus.PENDING)
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    #: Later than now if the endpoint has refused this one and accepts others. A pause of the endpoint changes nothing.
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        Index("webhook_deliveries_of_event", "webhook_id", "seq", unique=True),
        Index("webhook_deliveries_of_webhook", "webhook_id", "id"),
        # The order of an endpoint's deliveries, those without a number first, and the earliest time of one.
        Index("webhook_deliveries_pending", "webhook_id", text("seq NULLS FIRST"), "id", postgresql_where=_PENDING),
        Index("webhook_deliveries_due", "webhook_id", "next_attempt_at", postgresql_where=_PENDING),
        Index("webhook_deliveries_by_time", "created_at", postgresql_using="brin"),
    )


class WebhookAttempt(Base):
    """An attempt at a delivery."""

    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[int] = mapped_column(ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: The status of the response; NULL without one.
    status_code: Mapped[int | None]
    #: Why there was no response, or what is wrong with it.
    error: Mapped[str | None]
    seconds: Mapped[float]
