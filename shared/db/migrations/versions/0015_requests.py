"""Requests: what a prompt asks of a model besides its text, and what an answer has besides its own.

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# JSONB loses the order of keys, and models write the properties of a schema in its order.
_COLUMNS = (
    sa.Column("request", sa.JSON),
    sa.Column("request_hash", sa.LargeBinary),
    sa.Column("metadata", postgresql.JSONB),
    sa.Column("tool_calls", postgresql.JSONB),
    sa.Column("api", sa.String),
    sa.Column("api_request", postgresql.JSONB),
    sa.Column("batch_id", sa.BigInteger),
)


def upgrade() -> None:
    for column in _COLUMNS:
        op.add_column("prompts", column)
    op.create_index(
        "prompts_by_metadata",
        "prompts",
        ["metadata"],
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
        postgresql_where=sa.text("metadata IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("prompts_by_metadata", "prompts")
    for column in reversed(_COLUMNS):
        op.drop_column("prompts", column.name)
