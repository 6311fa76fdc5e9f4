"""COPY: storing many rows at once, in PostgreSQL's text format.

https://www.postgresql.org/docs/current/sql-copy.html
"""

import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.orm import Session

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def copy_rows(session: Session, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Store rows in the session's transaction. The names of the table and its columns are the caller's own."""
    data = io.StringIO("".join("\t".join(map(_field, row)) + "\n" for row in rows))
    connection: Any = session.connection().connection  # psycopg2's
    with connection.cursor() as cursor:
        cursor.copy_expert(f"COPY {table} ({', '.join(columns)}) FROM STDIN", data)


def _field(value: Any) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, bytes):
        return f"\\\\x{value.hex()}"
    if isinstance(value, dict | list):
        value = json.dumps(value)
    return str(value).translate(_ESCAPES)
