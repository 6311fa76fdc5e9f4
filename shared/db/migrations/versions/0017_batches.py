"""Files and batches.

Revision ID: 0017
Revises: 0016
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_NOW = sa.func.now()
_ZERO = sa.text("0")
_TIMES = (
    *("in_progress_at", "finalizing_at", "completed_at", "failed_at"),
    *("expired_at", "cancelling_at", "cancelled_at"),
)
_OF_A_LINE = "batch_id IS NOT NULL"
_NOT_OF_A_BATCH = "due_at IS NOT NULL AND batch_id IS NULL"


def _owner() -> sa.Column[int]:
    return sa.Column("user_id", sa.BigInteger, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        _owner(),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("filename", sa.String, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False, server_default=_ZERO),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.Column("stored_at", sa.DateTime(timezone=True)),
    )
    op.create_index("files_of_user", "files", ["user_id", "id"])
    op.create_index("files_not_stored", "files", ["created_at"], postgresql_where=sa.text("stored_at IS NULL"))
    op.create_table(
        "file_chunks",
        sa.Column("file_id", sa.BigInteger, sa.ForeignKey("files.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "batches",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        _owner(),
        sa.Column("key_id", sa.BigInteger),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("input_file_id", sa.BigInteger, nullable=False),
        sa.Column("output_file_id", sa.BigInteger),
        sa.Column("error_file_id", sa.BigInteger),
        sa.Column("status", sa.String, nullable=False, server_default="validating"),
        sa.Column("completion_window", sa.String, nullable=False),
        sa.Column("metadata", postgresql.JSONB),
        sa.Column("errors", postgresql.JSONB),
        sa.Column("total_lines", sa.BigInteger, nullable=False, server_default=_ZERO),
        sa.Column("stored_lines", sa.BigInteger, nullable=False, server_default=_ZERO),
        sa.Column("stored_bytes", sa.BigInteger, nullable=False, server_default=_ZERO),
        sa.Column("completed_lines", sa.BigInteger),
        sa.Column("failed_lines", sa.BigInteger),
        sa.Column("reserved_tokens", sa.BigInteger, nullable=False, server_default=_ZERO),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=_NOW),
        sa.Column("leased_by", sa.String),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        *(sa.Column(name, sa.DateTime(timezone=True)) for name in _TIMES),
    )
    op.create_index("batches_of_user", "batches", ["user_id", "id"])
    op.create_index("batches_due", "batches", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL"))
    op.create_index("batches_unfinished", "batches", ["user_id"], postgresql_where=sa.text("due_at IS NOT NULL"))
    op.add_column("prompts", sa.Column("batch_line", sa.BigInteger))
    op.create_index(
        "prompts_of_batch", "prompts", ["batch_id", "batch_line"], unique=True, postgresql_where=sa.text(_OF_A_LINE)
    )
    op.create_index("prompts_unfinished", "prompts", ["user_id"], postgresql_where=sa.text(_NOT_OF_A_BATCH))
    op.add_column("feed", sa.Column("batch_id", sa.BigInteger))
    op.add_column("webhook_deliveries", sa.Column("batch_id", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("webhook_deliveries", "batch_id")
    op.drop_column("feed", "batch_id")
    op.drop_index("prompts_unfinished", "prompts")
    op.drop_index("prompts_of_batch", "prompts")
    op.drop_column("prompts", "batch_line")
    op.drop_table("batches")
    op.drop_table("file_chunks")
    op.drop_table("files")
