"""The fair queue: the turns of queued prompts, and the rounds and pauses of model routes.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_CLAIMABLE = "status = 'queued' AND turn IS NOT NULL AND not_before IS NULL"
_WITHOUT_TURN = "status = 'queued' AND (turn IS NULL OR not_before IS NOT NULL)"


def upgrade() -> None:
    op.create_table(
        "routes",
        sa.Column("route", sa.String, primary_key=True),
        sa.Column("round_default", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("round_low", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("paused_until", sa.DateTime(timezone=True)),
        sa.Column("pause_detail", sa.String),
        sa.Column("unavailable_since", sa.DateTime(timezone=True)),
        sa.Column("failures", sa.BigInteger, nullable=False, server_default="0"),
    )
    # None of these rewrites the table: PostgreSQL stores the default for existing rows in the catalog.
    op.add_column("prompts", sa.Column("route", sa.String, nullable=False, server_default="default"))
    op.add_column("prompts", sa.Column("priority", sa.String, nullable=False, server_default="default"))
    op.add_column("prompts", sa.Column("turn", sa.BigInteger))
    # A worker or API process of the earlier release gives no turns; the reaper does so for its prompts, as for these.
    op.create_index(
        "prompts_claimable", "prompts", ["route", "priority", "turn", "id"], postgresql_where=sa.text(_CLAIMABLE)
    )
    op.create_index(
        "prompts_turns_of_user",
        "prompts",
        ["user_id", "route", "priority", "turn"],
        postgresql_where=sa.text(_CLAIMABLE),
    )
    op.create_index("prompts_without_turn", "prompts", ["user_id", "id"], postgresql_where=sa.text(_WITHOUT_TURN))
    op.create_index("prompts_leased", "prompts", ["due_at"], postgresql_where=sa.text("status = 'processing'"))


def downgrade() -> None:
    op.drop_index("prompts_leased", "prompts")
    for name in ("turn", "priority", "route"):
        op.drop_column("prompts", name)  # with its indexes
    op.drop_table("routes")
