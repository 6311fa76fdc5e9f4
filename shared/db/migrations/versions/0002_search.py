"""Sealed segments, and vectors of two embedders at the same time."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("embedder", sa.String(), nullable=True))
    op.add_column("users", sa.Column("index_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False))

    op.drop_constraint("vector_names_its_embedder", "vector_log")
    op.execute("UPDATE vector_log SET embedder = '' WHERE embedder IS NULL")
    op.alter_column("vector_log", "embedder", server_default="", nullable=False)
    op.create_check_constraint("vector_names_its_embedder", "vector_log", "(vector IS NULL) = (embedder = '')")
    op.drop_constraint("vector_log_pkey", "vector_log")
    op.create_primary_key("vector_log_pkey", "vector_log", ["user_id", "seq", "embedder"])
    op.execute(
        "UPDATE users SET embedder = (SELECT embedder FROM vector_log l WHERE l.user_id = users.id AND embedder <> '' "
        "ORDER BY seq DESC LIMIT 1)"
    )

    op.create_table(
        "segments",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("embedder", sa.String(), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("checksum", sa.LargeBinary(), nullable=False),
        sa.Column("faiss_version", sa.String(), nullable=False),
        sa.Column("location", sa.String(), nullable=True),
        sa.Column("damaged", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("segments_of_user", "segments", ["user_id", "id"], unique=False)
    op.create_table(
        "segment_parts",
        sa.Column("segment_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["segment_id"], ["segments.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("segment_id", "number"),
    )
    # Quantized vectors do not compress; trying costs time.
    op.execute("ALTER TABLE segment_parts ALTER COLUMN data SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.drop_table("segment_parts")
    op.drop_index("segments_of_user", table_name="segments")
    op.drop_table("segments")
    op.execute("DROP TABLE IF EXISTS pgvector_vectors, pgvector_state")
    # Keep the vectors of the embedder that searches use.
    op.execute(
        "DELETE FROM vector_log l USING (SELECT user_id, seq, l.embedder, row_number() OVER "
        "(PARTITION BY user_id, seq ORDER BY (l.embedder = u.embedder) DESC NULLS LAST, l.embedder) AS place "
        "FROM vector_log l JOIN users u ON u.id = l.user_id) ranked "
        "WHERE place > 1 AND ranked.user_id = l.user_id AND ranked.seq = l.seq AND ranked.embedder = l.embedder"
    )
    op.drop_constraint("vector_log_pkey", "vector_log")
    op.drop_constraint("vector_names_its_embedder", "vector_log")
    op.create_primary_key("vector_log_pkey", "vector_log", ["user_id", "seq"])
    op.alter_column("vector_log", "embedder", server_default=None, nullable=True)
    op.execute("UPDATE vector_log SET embedder = NULL WHERE embedder = ''")
    op.create_check_constraint("vector_names_its_embedder", "vector_log", "(vector IS NULL) = (embedder IS NULL)")
    op.drop_column("users", "index_version")
    op.drop_column("users", "embedder")
