"""Prompts, their feed and their routes."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Identity, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.models.base import Base
from shared.settings.model_routes import DEFAULT_ROUTE


class Status(StrEnum):
    """The status of a prompt: queued → processing → completed | failed | cancelled."""

    QUEUED = "queued"  # stored; a worker will claim it, perhaps again
    PROCESSING = "processing"  # a worker holds its lease
    COMPLETED = "completed"  # answered; final
    FAILED = "failed"  # no attempts left; its user may retry it
    CANCELLED = "cancelled"  # cancelled by its user, who may retry it


# Conditions on rows of `prompts`, as the partial indexes have them.
CLAIMABLE = "status = 'queued' AND turn IS NOT NULL AND not_before IS NULL"
WITHOUT_TURN = "status = 'queued' AND (turn IS NULL OR not_before IS NOT NULL)"
WITHOUT_VECTOR = "vector_due_at IS NOT NULL"
UNSTORED = "(api_request ->> 'is_unstored') = 'true'"
#: What counts against the limits of unfinished prompts: lines of batches do not.
COUNTED = "due_at IS NOT NULL AND batch_id IS NULL"

UNFINISHED = (Status.QUEUED, Status.PROCESSING)
RETRIABLE = (Status.FAILED, Status.CANCELLED)


class Change(StrEnum):
    """The kind of an entry in a user's feed."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETED = "deleted"
    #: A vector that was missing was added. It is no event, and its entry names no prompt (`prompt_id` is 0): readers of
    #: the feed, also those of the release before, pass over it.
    EMBEDDED = "embedded"
    #: The vector of an old prompt was removed (RETENTION_DAYS). Its entry is like that of a vector that was added.
    EMPTIED = "emptied"
    #: A batch has ended. Its entry names no prompt, but a batch.
    BATCH_ENDED = "batch_ended"


class Priority(StrEnum):
    """The priority of a prompt. Low-priority prompts come after all others, but get at least a tenth of the work."""

    DEFAULT = "default"
    LOW = "low"


class CacheUse(StrEnum):
    """How a prompt uses the semantic cache, if its user asked for it."""

    ALLOWED = "allowed"  # the answer of a prompt that is similar enough is used
    REFUSED = "request"  # refused by the request: `Cache-Control: no-cache`
    BYPASSED = "bypass"  # has `history`: the answer depends on more than the prompt


class FrontApi(StrEnum):
    """The part of OpenAI's API that submitted a prompt."""

    RESPONSES = "responses"
    CHAT_COMPLETIONS = "chat_completions"


class Prompt(Base):
    """A prompt and its answer. The row is the outbox: once it is committed, the prompt will end exactly once."""

    __tablename__ = "prompts"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    prompt_text: Mapped[str]
    response_text: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default=Status.QUEUED)
    websocket: Mapped[bool]
    error: Mapped[str | None]
    request_id: Mapped[str]
    #: The W3C trace context of the request that submitted it, if tracing is on.
    traceparent: Mapped[str | None]
    #: The number of claims. It never decreases, so it fences off workers with an earlier claim.
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    #: The claim after which a failure is final; a retry by the user raises it.
    attempt_limit: Mapped[int]
    #: The model route that answers it.
    route: Mapped[str] = mapped_column(server_default=DEFAULT_ROUTE)
    priority: Mapped[str] = mapped_column(server_default=Priority.DEFAULT)
    #: Its turn in its lane while it is queued; NULL while it may not be claimed (see `shared/prompts/scheduling.py`).
    turn: Mapped[int | None]
    #: The end of the lease while it is processing. NULL if and only if it has ended. While it is queued, only workers
    #: of the release before the fair queue read it.
    due_at: Mapped[datetime | None]
    #: No claim before this time: the backoff after a failed attempt.
    not_before: Mapped[datetime | None]
    #: The number of its latest entry in its user's feed.
    seq: Mapped[int | None]
    #: A `CacheUse`; NULL if the cache is off for it.
    cache: Mapped[str | None]
    #: How many of its user's earlier exchanges the model gets as context.
    history: Mapped[int] = mapped_column(server_default=text("0"))
    #: The generator that answered it, and what that reported (see `shared/providers`).
    generator: Mapped[str | None]
    model: Mapped[str | None]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    finish_reason: Mapped[str | None]
    #: The prompt whose answer was used. Not a foreign key: that prompt may have been deleted.
    cached_from: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: When its user last queued it.
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    completed_at: Mapped[datetime | None]
    #: When to embed it again, because it was completed while the embedder failed. `infinity` if the embedder refuses
    #: its text; NULL for all other prompts (see `shared/search/missing_vectors.py`).
    vector_due_at: Mapped[datetime | None]
    #: How often a working embedder has refused its text.
    vector_failures: Mapped[int] = mapped_column(server_default=text("0"))
    #: The API key that submitted or retried it last; NULL for a login. Not a foreign key: usage outlives keys.
    key_id: Mapped[int | None]
    #: The tokens that it reserves of its budgets while it is unfinished; 0 without budgets.
    reserved_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    #: The tokens that all of its attempts used so far, as the ledger has them (`shared/accounts/usage.py`).
    used_prompt_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    used_completion_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    #: The newest attempt whose usage is in the ledger, so that none is counted twice.
    settled_attempt: Mapped[int] = mapped_column(server_default=text("0"))
    #: What it asks of the model besides its text, a `ModelRequest` as JSON; NULL if nothing. Not JSONB, which loses the
    #: order of keys: models write the properties of a schema in its order.
    request: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    #: SHA-256 of everything in `request` that changes an answer; NULL if nothing does.
    request_hash: Mapped[bytes | None]
    #: Pairs of strings by which its user finds it again.
    metadata_: Mapped[dict[str, str] | None] = mapped_column("metadata", JSONB(none_as_null=True))
    #: The functions that the model wants to be called, as OpenAI's chat completions have them.
    tool_calls: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True))
    #: The API of OpenAI that submitted it, a `FrontApi`; NULL for `POST /prompts/`.
    api: Mapped[str | None]
    #: The fields of that API's request that its resource repeats and that `request` does not have.
    api_request: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    #: The batch that it is a line of, and the number of the line in the batch's input file, from 1.
    batch_id: Mapped[int | None]
    batch_line: Mapped[int | None]
    #: When its text, answer and vector were removed because of RETENTION_DAYS.
    emptied_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')", "status_known"),
        CheckConstraint("(due_at IS NULL) = (status NOT IN ('queued', 'processing'))", "due_while_unfinished"),
        CheckConstraint("(completed_at IS NULL) = (status IN ('queued', 'processing'))", "timed_when_ended"),
        Index("prompts_of_user", "user_id", "id"),
        Index("prompts_of_user_by_status", "user_id", "status", "id"),
        Index("prompts_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index("prompts_claimable", "route", "priority", "turn", "id", postgresql_where=text(CLAIMABLE)),
        Index("prompts_turns_of_user", "user_id", "route", "priority", "turn", postgresql_where=text(CLAIMABLE)),
        Index("prompts_without_turn", "user_id", "id", postgresql_where=text(WITHOUT_TURN)),
        Index("prompts_running", "route", postgresql_where=text("status = 'processing'")),
        Index("prompts_leased", "due_at", postgresql_where=text("status = 'processing'")),
        Index("prompts_unfinished", "user_id", postgresql_where=text(COUNTED)),
        Index(
            "prompts_of_batch",
            "batch_id",
            "batch_line",
            unique=True,
            postgresql_where=text("batch_id IS NOT NULL"),
        ),
        Index("prompts_vector_due", "vector_due_at", postgresql_where=text(WITHOUT_VECTOR)),
        Index("prompts_vector_due_of_user", "user_id", "id", postgresql_where=text(WITHOUT_VECTOR)),
        Index("prompts_retriable", "completed_at", postgresql_where=text("status IN ('failed', 'cancelled')")),
        Index("prompts_unstored", "completed_at", postgresql_where=text(UNSTORED)),
        Index(
            "prompts_by_metadata",
            "metadata",
            postgresql_using="gin",
            postgresql_ops={"metadata": "jsonb_path_ops"},
            postgresql_where=text("metadata IS NOT NULL"),
        ),
    )


class Route(Base):
    """The state of a model route: the rounds of its two lanes, one for each priority, and its pauses.

    The first claim or pause inserts the row. Without one, the rounds are 0 and nothing is paused.
    """

    __tablename__ = "routes"

    route: Mapped[str] = mapped_column(primary_key=True)
    #: The highest round that was claimed of each priority. It never decreases.
    round_default: Mapped[int] = mapped_column(server_default=text("0"))
    round_low: Mapped[int] = mapped_column(server_default=text("0"))
    #: The end of the provider's pause. NULL while the provider is available. In the year 9999 while an operator has
    #: paused the route (see `shared/prompts/model_pause.py`).
    paused_until: Mapped[datetime | None]
    #: The provider's error, as users see it.
    pause_detail: Mapped[str | None]
    #: When the provider became unavailable, or an operator has paused the route.
    unavailable_since: Mapped[datetime | None]
    #: How often in succession the provider was unavailable.
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    #: How many of its prompts may be answered at a time, at most, because its provider refused more. NULL if it has
    #: not, or not since that was raised to OPENAI_CONCURRENCY again.
    concurrency: Mapped[float | None]
    concurrency_reduced_at: Mapped[datetime | None]
    #: Since when an operator has paused it, which user that was, and why. NULL if none has.
    held_since: Mapped[datetime | None]
    held_by: Mapped[int | None]
    hold_reason: Mapped[str | None]


class FeedEntry(Base):
    """A change of a user's prompts, numbered without gaps per user. Kept for FEED_RETENTION_DAYS.

    `error` is stored here, too, because a retry clears it on the prompt.
    """

    __tablename__ = "feed"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int]
    change: Mapped[str]
    error: Mapped[str | None]
    at: Mapped[datetime]
    #: The batch that has ended. Its entry names no prompt (`prompt_id` is 0).
    batch_id: Mapped[int | None]

    # Rows are inserted in order of time, so a block range index is enough for purging.
    __table_args__ = (
        Index("feed_by_time", "at", postgresql_using="brin"),
        Index("feed_failures", "at", postgresql_where=text("change = 'failed'")),
    )


class IdempotencyKey(Base):
    """A submission's idempotency key, and its prompt. Kept for 24 hours.

    Not a foreign key to the prompt: the key outlives a deleted prompt, so that a late repeat adds nothing.
    """

    __tablename__ = "idempotency_keys"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]
    prompt_id: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
