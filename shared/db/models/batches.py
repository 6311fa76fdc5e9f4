"""Files that users upload or workers write, and the batches of prompts that are made of them."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Identity, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.models.base import Base


class FilePurpose(StrEnum):
    """What a file is for. Users upload files of the first one."""

    BATCH = "batch"
    BATCH_OUTPUT = "batch_output"


class BatchStatus(StrEnum):
    """The status of a batch: validating → failed, or in_progress → finalizing → completed | expired.

    From validating and in_progress also → cancelling → cancelled.
    """

    VALIDATING = "validating"  # its input file is being read; no line is stored
    FAILED = "failed"  # its input file is not valid; no line was stored
    IN_PROGRESS = "in_progress"  # its lines are being stored and answered
    FINALIZING = "finalizing"  # its lines have ended, or end because it expires; its files are being written
    COMPLETED = "completed"  # its files can be read
    EXPIRED = "expired"  # as completed, but some lines were not answered in time
    CANCELLING = "cancelling"  # its user has cancelled it; its files are being written
    CANCELLED = "cancelled"


#: The statuses of batches that workers have something to do for.
UNFINISHED_BATCH = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING)


class File(Base):
    """A file. Its content is in `file_chunks`."""

    __tablename__ = "files"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    purpose: Mapped[str]
    filename: Mapped[str]
    #: The bytes of its chunks so far.
    bytes: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: When all of it was stored. NULL while it is uploaded, or if the upload was interrupted: nobody sees it then.
    stored_at: Mapped[datetime | None]

    __table_args__ = (
        Index("files_of_user", "user_id", "id"),
        Index("files_not_stored", "created_at", postgresql_where=text("stored_at IS NULL")),
    )


class FileChunk(Base):
    """A part of a file: CHUNK_BYTES of it, the last one fewer (`shared/batches/files.py`)."""

    __tablename__ = "file_chunks"

    file_id: Mapped[int] = mapped_column(ForeignKey("files.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes]


class Batch(Base):
    """A batch. Its lines are prompts with its id and the number of their line, unique together."""

    __tablename__ = "batches"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    key_id: Mapped[int | None]
    endpoint: Mapped[str]
    #: Not foreign keys: a user may delete the files of a batch that has ended.
    input_file_id: Mapped[int]
    output_file_id: Mapped[int | None]
    error_file_id: Mapped[int | None]
    status: Mapped[str] = mapped_column(server_default=BatchStatus.VALIDATING)
    completion_window: Mapped[str]
    metadata_: Mapped[dict[str, str] | None] = mapped_column("metadata", JSONB(none_as_null=True))
    #: Why it failed: `[{code, message, param, line}]`.
    errors: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True))
    #: How many lines it has, and how many of them are stored as prompts; the latter begin `stored_bytes` into the file.
    total_lines: Mapped[int] = mapped_column(server_default=text("0"))
    stored_lines: Mapped[int] = mapped_column(server_default=text("0"))
    stored_bytes: Mapped[int] = mapped_column(server_default=text("0"))
    #: How many lines its files have. NULL until it has ended: then they are counted from its prompts.
    completed_lines: Mapped[int | None]
    failed_lines: Mapped[int | None]
    #: The tokens that its lines that have not ended reserve of its budgets; 0 without budgets.
    reserved_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    #: When a worker next does something for it; while one does, the end of its lease. NULL once it has ended.
    due_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    #: The name of that lease.
    leased_by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    in_progress_at: Mapped[datetime | None]
    finalizing_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]
    #: When it was found to be late. It is `finalizing` then, until its files are written.
    expired_at: Mapped[datetime | None]
    cancelling_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]
    #: The progress that was announced last, `{status, completed, failed}`, and when sockets and webhooks got one.
    announced: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    announced_at: Mapped[datetime | None]
    progress_delivered_at: Mapped[datetime | None]

    __table_args__ = (
        Index("batches_of_user", "user_id", "id"),
        Index("batches_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index("batches_unfinished", "user_id", postgresql_where=text("due_at IS NOT NULL")),
    )
