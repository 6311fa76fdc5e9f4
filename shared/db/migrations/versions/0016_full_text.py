"""The words of completed prompts, which searches fill in.

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "prompt_words",
        sa.Column("prompt_id", sa.BigInteger(), nullable=False),
        sa.Column("words", postgresql.TSVECTOR(), nullable=False),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("prompt_id"),
    )
    # A short pending list: adding through it takes half the time, but each search has to read it.
    op.create_index(
        "prompt_words_by_word",
        "prompt_words",
        ["words"],
        postgresql_using="gin",
        postgresql_with={"gin_pending_list_limit": 128},
    )
    op.create_table(
        "word_index",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id"),
    )


def downgrade() -> None:
    op.drop_table("word_index")
    op.drop_table("prompt_words")
