"""The tables. Postgres is the source of truth: the queue, FAISS and sockets can be rebuilt from it."""

from shared.db.models.accounts import (
    DEFAULT_SCOPES,
    AbandonedAttempt,
    ApiKey,
    AuditEntry,
    LoginBlock,
    Scope,
    TokenFamily,
    Usage,
    User,
)
from shared.db.models.base import Base, WriteCheck
from shared.db.models.prompts import (
    CLAIMABLE,
    RETRIABLE,
    UNFINISHED,
    WITHOUT_TURN,
    WITHOUT_VECTOR,
    CacheUse,
    Change,
    FeedEntry,
    FrontApi,
    IdempotencyKey,
    Priority,
    Prompt,
    Route,
    Status,
)
from shared.db.models.search import SegmentEntry, SegmentPart, VectorLogEntry
from shared.db.models.webhooks import DeliveryStatus, Webhook, WebhookAttempt, WebhookDelivery
from shared.settings.model_routes import DEFAULT_ROUTE

__all__ = [
    "CLAIMABLE",
    "DEFAULT_ROUTE",
    "DEFAULT_SCOPES",
    "RETRIABLE",
    "UNFINISHED",
    "WITHOUT_TURN",
    "WITHOUT_VECTOR",
    "AbandonedAttempt",
    "ApiKey",
    "AuditEntry",
    "Base",
    "CacheUse",
    "Change",
    "DeliveryStatus",
    "FeedEntry",
    "FrontApi",
    "IdempotencyKey",
    "LoginBlock",
    "Priority",
    "Prompt",
    "Route",
    "Scope",
    "SegmentEntry",
    "SegmentPart",
    "Status",
    "TokenFamily",
    "Usage",
    "User",
    "VectorLogEntry",
    "Webhook",
    "WebhookAttempt",
    "WebhookDelivery",
    "WriteCheck",
]
