"""Checking whether PostgreSQL accepts writes, by writing."""

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import refusal

# One row, which all processes write: the old versions of it are reused without a vacuum (HOT). A committed write fails
# on a read-only server; but it needs no new space on the disk, so on a full one it may succeed. The second statement
# needs some: 10,000 numbers do not fit into 64 kB of memory, and are written into a temporary file.
_WRITE = text("""
    SET LOCAL work_mem = '64kB';
    INSERT INTO write_checks (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET checked_at = now();
    SELECT count(*) FROM generate_series(1, 10000)
""")


def write_problem(connection: Connection) -> str | None:
    """Write a row. Returns why that fails, or None if it does not."""
    try:
        connection.execute(_WRITE)
    except SQLAlchemyError as error:
        return refusal(error) or "unavailable"
    return None
