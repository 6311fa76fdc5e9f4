"""How answers ended, and how many prompts of a route are answered at a time.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("prompts", sa.Column("finish_reason", sa.String))
    op.add_column("routes", sa.Column("concurrency", sa.Float(53)))
    op.add_column("routes", sa.Column("concurrency_reduced_at", sa.DateTime(timezone=True)))
    op.create_index("prompts_running", "prompts", ["route"], postgresql_where=sa.text("status = 'processing'"))


def downgrade() -> None:
    op.drop_index("prompts_running", table_name="prompts")
    op.drop_column("routes", "concurrency_reduced_at")
    op.drop_column("routes", "concurrency")
    op.drop_column("prompts", "finish_reason")
