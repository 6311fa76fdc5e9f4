"""Unstored responses: an index of those that are to be deleted.

Revision ID: 0018
Revises: 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "prompts_unstored",
        "prompts",
        ["completed_at"],
        postgresql_where=sa.text("(api_request ->> 'is_unstored') = 'true'"),
    )


def downgrade() -> None:
    op.drop_index("prompts_unstored", "prompts")
