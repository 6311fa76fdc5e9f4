"""What the console has of its own: operations on many prompts, and the worker hosts."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Identity, Index, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.models.base import Base


class Action(StrEnum):
    """What an operation does with each of its prompts."""

    RETRY = "retry"
    CANCEL = "cancel"


class OperationStatus(StrEnum):
    """The status of an operation: running → completed, and from either → undoing → undone."""

    RUNNING = "running"
    COMPLETED = "completed"
    UNDOING = "undoing"
    UNDONE = "undone"


class PromptOutcome(StrEnum):
    """What an operation did with a prompt."""

    CHANGED = "changed"
    SKIPPED = "skipped"  # it had changed since the operation began, or its budget has no room
    UNDONE = "undone"  # it was changed, and is as before


class Operation(Base):
    """A retry or cancel of many prompts by an admin, which the workers carry out (`worker/operations.py`).

    Its prompts are in `operation_prompts` from the beginning.
    """

    __tablename__ = "operations"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    action: Mapped[str]
    #: The filter as the admin has sent it.
    filter: Mapped[dict[str, Any]] = mapped_column(JSONB)
    status: Mapped[str] = mapped_column(server_default=OperationStatus.RUNNING)
    total: Mapped[int] = mapped_column(server_default=text("0"))
    #: How many of its prompts have each outcome. Those that are undone count as changed, too.
    changed: Mapped[int] = mapped_column(server_default=text("0"))
    skipped: Mapped[int] = mapped_column(server_default=text("0"))
    undone: Mapped[int] = mapped_column(server_default=text("0"))
    #: The prompts up to this id are done, or undone.
    reached_id: Mapped[int] = mapped_column(server_default=text("0"))
    #: The admin, as the audit trail has them.
    actor_id: Mapped[int | None]
    key_id: Mapped[int | None]
    address: Mapped[str]
    request_id: Mapped[str | None]
    #: When a worker does the next group; while one does, the end of its lease. NULL once it has ended.
    due_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    #: The name of that lease.
    leased_by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]

    __table_args__ = (Index("operations_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),)


class OperationPrompt(Base):
    """A prompt of an operation. Not a foreign key: prompts are deleted without a look here."""

    __tablename__ = "operation_prompts"

    operation_id: Mapped[int] = mapped_column(ForeignKey("operations.id", ondelete="CASCADE"), primary_key=True)
    prompt_id: Mapped[int] = mapped_column(primary_key=True)
    #: A `PromptOutcome`; NULL before.
    outcome: Mapped[str | None]
    #: When it was changed, its attempt then, and its batch before. Until then `changed_at` is when it ended (retry) or
    #: was queued (cancel): a prompt that has another time by now has changed since the operation began.
    attempt: Mapped[int | None]
    batch_id: Mapped[int | None]
    changed_at: Mapped[datetime | None]


class WorkerHost(Base):
    """A worker host: the main process of a Celery worker, which writes this row every few seconds."""

    __tablename__ = "workers"

    #: New with each start.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    version: Mapped[str]
    pool: Mapped[str]
    concurrency: Mapped[int]
    #: The model routes that it answers.
    models: Mapped[list[str]] = mapped_column(ARRAY(Text))
    #: How many tasks it runs.
    active_tasks: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
