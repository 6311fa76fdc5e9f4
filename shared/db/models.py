"""The tables. Postgres is the truth; everything else (queue, FAISS, sockets) can be lost and made again from these."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    func,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    type_annotation_map = {int: BigInteger, datetime: DateTime(timezone=True), bytes: LargeBinary}


class Status(StrEnum):
    """Where a prompt is in its life: queued → processing → completed | failed | cancelled."""

    QUEUED = "queued"  # stored; a worker will take it, or take it again
    PROCESSING = "processing"  # a worker holds its lease
    COMPLETED = "completed"  # answered, for good
    FAILED = "failed"  # given up; may be retried by its user
    CANCELLED = "cancelled"  # ended by its user; may be retried by them


UNFINISHED = (Status.QUEUED, Status.PROCESSING)
RETRIABLE = (Status.FAILED, Status.CANCELLED)


class Change(StrEnum):
    """What a number of a user's feed stands for."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETED = "deleted"


class CacheUse(StrEnum):
    """How a prompt whose user wants it answered from an earlier one, if that is possible, fares."""

    ALLOWED = "allowed"  # if there is one that is near enough, its answer is taken
    REFUSED = "request"  # not this time: `Cache-Control: no-cache`
    BYPASSED = "bypass"  # not with `history`: the answer depends on more than the prompt


class User(Base):
    """Someone who submits prompts. `seq` is the newest number of their feed (see `shared/prompts/feed.py`)."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    seq: Mapped[int] = mapped_column(server_default=text("0"))
    #: The name of the embedder whose vectors this user's searches compare; NULL before the first one.
    embedder: Mapped[str | None]
    #: Raised when there are other segments, or vectors were changed in place: indexes must be loaded anew.
    index_version: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TokenFamily(Base):
    """One login: the chain of refresh tokens that came from it. Only the newest, `current`, may be used."""

    __tablename__ = "token_families"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    current: Mapped[UUID]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]

    __table_args__ = (Index("token_families_ended", "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),)


class Prompt(Base):
    """A prompt and its answer. The row is the outbox: once it is committed, the prompt will end visibly, once."""

    __tablename__ = "prompts"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    prompt_text: Mapped[str]
    response_text: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default=Status.QUEUED)
    websocket: Mapped[bool]
    error: Mapped[str | None]
    request_id: Mapped[str]
    #: The W3C trace context of the request that submitted it, if there are traces.
    traceparent: Mapped[str | None]
    #: Claims so far. It never goes down, so it fences out whoever held an earlier claim.
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    #: The claim after which a failure is final; a retry by the user raises it.
    attempt_limit: Mapped[int]
    #: If it is still unfinished then, the reaper hands it out again. NULL exactly when it has ended.
    due_at: Mapped[datetime | None]
    #: A claim before this is refused: the back-off after a failed attempt.
    not_before: Mapped[datetime | None]
    #: The number of its newest ending in its user's feed.
    seq: Mapped[int | None]
    #: A `CacheUse`; NULL where the cache was not asked for.
    cache: Mapped[str | None]
    #: How many of its user's earlier exchanges its answer is to know of.
    history: Mapped[int] = mapped_column(server_default=text("0"))
    #: The name of the generator that answered it, and what that said of it (see `shared/providers`).
    generator: Mapped[str | None]
    model: Mapped[str | None]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    #: The prompt whose answer was taken. No foreign key: it may have been deleted since.
    cached_from: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: When its user last queued it.
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    completed_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')", "status_known"),
        CheckConstraint("(due_at IS NULL) = (status NOT IN ('queued', 'processing'))", "due_while_unfinished"),
        CheckConstraint("(completed_at IS NULL) = (status IN ('queued', 'processing'))", "timed_when_ended"),
        Index("prompts_of_user", "user_id", "id"),
        Index("prompts_of_user_by_status", "user_id", "status", "id"),
        Index("prompts_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    )


class FeedEntry(Base):
    """One change of one user, numbered without gaps. Kept for FEED_RETENTION_DAYS.

    `error` is kept here because a retry clears it on the prompt.
    """

    __tablename__ = "feed"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int]
    change: Mapped[str]
    error: Mapped[str | None]
    at: Mapped[datetime]

    # Rows come in the order of time, so that a block range index is enough to find what to purge.
    __table_args__ = (Index("feed_by_time", "at", postgresql_using="brin"),)


class VectorLogEntry(Base):
    """One change of one user's search index: a vector (little-endian float32), or a tombstone where it is NULL.

    While vectors are made anew by another embedder, a prompt has one of each, under the same number.
    """

    __tablename__ = "vector_log"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    #: The embedder's name; empty for a tombstone.
    embedder: Mapped[str] = mapped_column(primary_key=True, server_default="")
    prompt_id: Mapped[int]
    vector: Mapped[bytes | None]

    __table_args__ = (
        CheckConstraint("(vector IS NULL) = (embedder = '')", "vector_names_its_embedder"),
        Index("vector_log_of_prompt", "user_id", "prompt_id"),
    )


class SegmentEntry(Base):
    """A sealed segment: an index over the vectors that a user's log had from `first_seq` to `last_seq`.

    Derived from the log, and never changed: a worker makes a new one instead.
    """

    __tablename__ = "segments"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    embedder: Mapped[str]
    first_seq: Mapped[int]
    last_seq: Mapped[int]
    count: Mapped[int]
    #: SHA-256 of the payload.
    checksum: Mapped[bytes]
    #: The version of FAISS that made it, for whoever looks into a damaged one.
    faiss_version: Mapped[str]
    #: Where the payload is, if not in `segment_parts`.
    location: Mapped[str | None]
    #: Found unreadable; a worker replaces it.
    damaged: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("segments_of_user", "user_id", "id"),)


class SegmentPart(Base):
    """A piece of a segment's payload, in order of `number`."""

    __tablename__ = "segment_parts"

    segment_id: Mapped[int] = mapped_column(ForeignKey("segments.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes]


class IdempotencyKey(Base):
    """A key a client gave with a submission, and the prompt it made. Kept for 24 hours.

    No foreign key to the prompt: a key outlives a deleted prompt, so that a late repeat adds nothing.
    """

    __tablename__ = "idempotency_keys"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]
    prompt_id: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
