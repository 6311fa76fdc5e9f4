"""Identities at an identity provider (OpenID Connect), and the codes of sign-ins.

Revision ID: 0021
Revises: 0020
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identities",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("user_id", sa.BigInteger, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("issuer", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("issuer", "subject", name="identities_issuer_subject"),
        sa.UniqueConstraint("user_id", "issuer", name="identities_user_issuer"),
    )
    op.create_table(
        "sign_in_codes",
        sa.Column("code_hash", sa.LargeBinary, primary_key=True),
        sa.Column("challenge", sa.String, nullable=False),
        sa.Column("issuer", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("username", sa.String),
        sa.Column("is_admin", sa.Boolean),
        sa.Column("reauthenticated", sa.Boolean, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False, index=True),
    )


def downgrade() -> None:
    op.drop_table("sign_in_codes")
    op.drop_table("identities")
