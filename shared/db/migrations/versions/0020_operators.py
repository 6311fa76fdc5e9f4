"""The console: viewers, pauses of models by operators, operations on many prompts, and the worker hosts.

Revision ID: 0020
Revises: 0019
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_NOW = sa.func.now()
_ZERO = sa.text("0")


def _time(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), **options)


def upgrade() -> None:
    op.add_column("users", sa.Column("is_viewer", sa.Boolean, nullable=False, server_default=sa.text("false")))
    op.add_column("routes", _time("held_since"))
    op.add_column("routes", sa.Column("held_by", sa.BigInteger))
    op.add_column("routes", sa.Column("hold_reason", sa.String))
    op.create_index(
        "prompts_retriable", "prompts", ["completed_at"], postgresql_where=sa.text("status IN ('failed', 'cancelled')")
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("filter", postgresql.JSONB, nullable=False),
        sa.Column("status", sa.String, nullable=False, server_default="running"),
        sa.Column("total", sa.BigInteger, nullable=False, server_default=_ZERO),
        sa.Column("changed", sa.BigInteger, nullable=False, server_default=_ZERO),
        sa.Column("skipped", sa.BigInteger, nullable=False, server_default=_ZERO),
        sa.Column("undone", sa.BigInteger, nullable=False, server_default=_ZERO),
        sa.Column("reached_id", sa.BigInteger, nullable=False, server_default=_ZERO),
        sa.Column("actor_id", sa.BigInteger),
        sa.Column("key_id", sa.BigInteger),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("request_id", sa.String),
        _time("due_at", server_default=_NOW),
        sa.Column("leased_by", sa.String),
        _time("created_at", nullable=False, server_default=_NOW),
        _time("ended_at"),
    )
    op.create_index("operations_due", "operations", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL"))
    op.create_table(
        "operation_prompts",
        sa.Column("operation_id", sa.BigInteger, sa.ForeignKey("operations.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("prompt_id", sa.BigInteger, primary_key=True),
        sa.Column("outcome", sa.String),
        sa.Column("attempt", sa.BigInteger),
        sa.Column("batch_id", sa.BigInteger),
        _time("changed_at"),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("pool", sa.String, nullable=False),
        sa.Column("concurrency", sa.BigInteger, nullable=False),
        sa.Column("models", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("active_tasks", sa.BigInteger, nullable=False),
        _time("started_at", nullable=False, server_default=_NOW),
        _time("seen_at", nullable=False, server_default=_NOW),
    )


def downgrade() -> None:
    op.drop_table("workers")
    op.drop_table("operation_prompts")
    op.drop_table("operations")
    op.drop_index("prompts_retriable", "prompts")
    for name in ("hold_reason", "held_by", "held_since"):
        op.drop_column("routes", name)
    op.drop_column("users", "is_viewer")
