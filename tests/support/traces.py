"""Finds a text wherever the service may keep it: tables, Redis, files."""

from pathlib import Path

from redis import Redis
from sqlalchemy import Engine, text

_TABLES = text("""
    SELECT quote_ident(relname) FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname
""")
_WITH_USER = text("""
    SELECT quote_ident(table_name) FROM information_schema.columns
    WHERE table_schema = 'public' AND column_name = 'user_id' ORDER BY table_name
""")


def in_tables(engine: Engine, marker: str) -> list[str]:
    """The tables that have the text in any column of any row, as text or as bytes."""
    query = "SELECT EXISTS (SELECT FROM {} AS row WHERE row::text ILIKE :text OR row::text ILIKE :bytes)"
    parameters = {"text": f"%{marker}%", "bytes": f"%{marker.encode().hex()}%"}
    with engine.connect() as connection:
        tables = connection.scalars(_TABLES).all()
        return [table for table in tables if connection.scalar(text(query.format(table)), parameters)]


def rows_of(engine: Engine, user_id: int) -> dict[str, int]:
    """How many rows each table has of a user, where it has any."""
    query = "SELECT count(*) FROM {} WHERE user_id = :user_id"
    with engine.connect() as connection:
        tables = connection.scalars(_WITH_USER).all()
        counts = {table: connection.scalar(text(query.format(table)), {"user_id": user_id}) for table in tables}
    return {table: count for table, count in counts.items() if count}


def in_redis(redis_url: str, marker: str) -> list[str]:
    """The keys that have the text in their name or in their value."""
    with Redis.from_url(redis_url, encoding_errors="replace", decode_responses=True) as redis:
        return [key for key in redis.scan_iter() if marker in key or marker in repr(_value(redis, key))]


def _value(redis: Redis, key: str) -> object:
    readers = {
        "string": redis.get,
        "list": lambda name: redis.lrange(name, 0, -1),
        "hash": redis.hgetall,
        "set": redis.smembers,
        "zset": lambda name: redis.zrange(name, 0, -1),
        "none": lambda _: None,  # it has expired
    }
    return readers[redis.type(key)](key)


def in_files(folder: Path, marker: str) -> list[Path]:
    """The files below a folder that have the text."""
    return [path for path in folder.rglob("*") if path.is_file() and marker.encode() in path.read_bytes()]
