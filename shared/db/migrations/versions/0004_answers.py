"""The semantic cache, history, and what answered a prompt.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # None of these rewrites the table: PostgreSQL stores the default for existing rows in the catalog.
    op.add_column("prompts", sa.Column("cache", sa.String))
    op.add_column("prompts", sa.Column("history", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("prompts", sa.Column("generator", sa.String))
    op.add_column("prompts", sa.Column("model", sa.String))
    op.add_column("prompts", sa.Column("prompt_tokens", sa.BigInteger))
    op.add_column("prompts", sa.Column("completion_tokens", sa.BigInteger))
    op.add_column("prompts", sa.Column("cached_from", sa.BigInteger))
    now = sa.func.now()
    op.add_column("prompts", sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False, server_default=now))


def downgrade() -> None:
    for name in (
        "queued_at", "cached_from", "completion_tokens", "prompt_tokens", "model", "generator", "history", "cache",
    ):  # fmt: skip
        op.drop_column("prompts", name)
