"""The progress of batches that was announced.

Revision ID: 0019
Revises: 0018
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("announced", JSONB))
    op.add_column("batches", sa.Column("announced_at", sa.DateTime(timezone=True)))
    op.add_column("batches", sa.Column("progress_delivered_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("batches", "progress_delivered_at")
    op.drop_column("batches", "announced_at")
    op.drop_column("batches", "announced")
