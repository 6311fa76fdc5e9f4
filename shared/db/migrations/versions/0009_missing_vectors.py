"""Completed prompts whose vectors follow later.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_MISSING = "vector_due_at IS NOT NULL"


def upgrade() -> None:
    op.add_column("users", sa.Column("vectors_missing", sa.Boolean, nullable=False, server_default=sa.text("false")))
    op.add_column("prompts", sa.Column("vector_due_at", sa.DateTime(timezone=True)))
    op.add_column("prompts", sa.Column("vector_failures", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.create_index("prompts_vector_due", "prompts", ["vector_due_at"], postgresql_where=sa.text(_MISSING))
    op.create_index("prompts_vector_due_of_user", "prompts", ["user_id", "id"], postgresql_where=sa.text(_MISSING))


def downgrade() -> None:
    op.drop_index("prompts_vector_due_of_user", table_name="prompts")
    op.drop_index("prompts_vector_due", table_name="prompts")
    op.drop_column("prompts", "vector_failures")
    op.drop_column("prompts", "vector_due_at")
    op.drop_column("users", "vectors_missing")
