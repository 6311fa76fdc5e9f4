"""The peer's tables, and its connections to PostgreSQL."""

import os

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

POOL_SIZE = 20

metadata = MetaData()
users = Table(
    "users",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("username", Text, nullable=False, unique=True),
)
prompts = Table(
    "prompts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("prompt_text", Text, nullable=False),
    Column("response_text", Text),
    Column("status", Text, nullable=False, server_default=text("'queued'")),
    Column("embedding", LargeBinary),  # 384 little-endian float32
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("completed_at", DateTime(timezone=True)),
    Index("prompts_of_user", "user_id", "id"),
)


def make_engine() -> AsyncEngine:
    """Create an autocommit engine: no statement here belongs with another, and each saves two round trips."""
    url = make_url(os.environ["PEER_DATABASE_URL"]).set(drivername="postgresql+asyncpg")
    return create_async_engine(url, pool_size=POOL_SIZE, max_overflow=0, isolation_level="AUTOCOMMIT")
