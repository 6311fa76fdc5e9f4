"""Admins, deleted accounts, names that are unique in any case, details of logins, and the audit trail.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_FALSE = sa.text("false")
# Of users whose names differ only in case, the first one has the name. The others log in by their exact names.
_MARK_DUPLICATES = """
    UPDATE users SET shares_name = true
    WHERE EXISTS (
        SELECT FROM users AS earlier
        WHERE lower(earlier.username COLLATE "C") = lower(users.username COLLATE "C") AND earlier.id < users.id
    )
"""
_REFUSE_CHANGES = """
    CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'the audit trail is append-only'; END $$;
    CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()
"""


def upgrade() -> None:
    op.add_column("users", sa.Column("is_admin", sa.Boolean, nullable=False, server_default=_FALSE))
    op.add_column("users", sa.Column("admin_changed_at", sa.DateTime(timezone=True)))
    op.add_column("users", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.add_column("users", sa.Column("shares_name", sa.Boolean, nullable=False, server_default=_FALSE))
    op.execute(_MARK_DUPLICATES)
    op.create_index(
        "users_by_folded_name",
        "users",
        [sa.text('lower(username COLLATE "C")')],
        unique=True,
        postgresql_where=sa.text("NOT shares_name"),
    )
    op.create_index("users_deleted", "users", ["deleted_at"], postgresql_where=sa.text("deleted_at IS NOT NULL"))
    op.create_index(
        "users_admin_changed",
        "users",
        ["admin_changed_at"],
        postgresql_where=sa.text("admin_changed_at IS NOT NULL"),
    )
    # NULL for existing logins: when they began is not known.
    op.add_column("token_families", sa.Column("created_at", sa.DateTime(timezone=True)))
    op.alter_column("token_families", "created_at", server_default=sa.func.now())
    op.add_column("token_families", sa.Column("last_used_at", sa.DateTime(timezone=True)))
    op.add_column("token_families", sa.Column("address", sa.String))
    op.add_column("token_families", sa.Column("user_agent", sa.String))
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("actor_id", sa.BigInteger),
        sa.Column("key_id", sa.BigInteger),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("user_id", sa.BigInteger),
        sa.Column("details", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("request_id", sa.String),
    )
    op.create_index("audit_of_user", "audit", ["user_id", "id"])
    op.execute(_REFUSE_CHANGES)


def downgrade() -> None:
    op.drop_table("audit")
    op.execute("DROP FUNCTION refuse_audit_change")
    for name in ("user_agent", "address", "last_used_at", "created_at"):
        op.drop_column("token_families", name)
    op.drop_index("users_admin_changed", table_name="users")
    op.drop_index("users_deleted", table_name="users")
    op.drop_index("users_by_folded_name", table_name="users")
    for name in ("shares_name", "deleted_at", "admin_changed_at", "is_admin"):
        op.drop_column("users", name)
