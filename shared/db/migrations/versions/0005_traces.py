"""The trace of a prompt.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("prompts", sa.Column("traceparent", sa.String))


def downgrade() -> None:
    op.drop_column("prompts", "traceparent")
