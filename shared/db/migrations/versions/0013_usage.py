"""The ledger of what prompts used, what unfinished ones reserve, and the removal of old texts.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_ZERO = sa.text("0")
_COUNTERS = ("reserved_tokens", "used_prompt_tokens", "used_completion_tokens", "settled_attempt")


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("user_id", sa.BigInteger, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("key_id", sa.BigInteger, primary_key=True),
        sa.Column("route", sa.String, primary_key=True),
        sa.Column("prompts", sa.BigInteger, nullable=False, server_default=_ZERO),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False, server_default=_ZERO),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False, server_default=_ZERO),
        sa.Column("cost", sa.Numeric, nullable=False, server_default=_ZERO),
    )
    op.create_index("usage_by_day", "usage", ["day"])
    op.create_table(
        "abandoned_attempts",
        sa.Column("prompt_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("user_id", sa.BigInteger, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("key_id", sa.BigInteger, nullable=False),
        sa.Column("reserved_tokens", sa.BigInteger, nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
    )
    op.add_column("prompts", sa.Column("key_id", sa.BigInteger))
    for name in _COUNTERS:
        op.add_column("prompts", sa.Column(name, sa.BigInteger, nullable=False, server_default=_ZERO))
    op.add_column("prompts", sa.Column("emptied_at", sa.DateTime(timezone=True)))
    op.create_index("feed_failures", "feed", ["at"], postgresql_where=sa.text("change = 'failed'"))


def downgrade() -> None:
    op.drop_index("feed_failures", table_name="feed")
    for name in ("emptied_at", *_COUNTERS, "key_id"):
        op.drop_column("prompts", name)
    op.drop_table("abandoned_attempts")
    op.drop_table("usage")
