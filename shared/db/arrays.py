"""Passing many rows to one statement as arrays, a column each: `unnest` turns them into a table.

The SQL is made only of the names and types of columns; values are always parameters.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import FromClause
from sqlalchemy.dialects import postgresql

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def column_types(table: FromClause, names: Iterable[str]) -> dict[str, str]:
    """The PostgreSQL types of these columns, by name."""
    return {name: table.c[name].type.compile(dialect=_DIALECT) for name in names}


def unnest(types: dict[str, str]) -> str:
    """The SQL of a table function over array parameters, one for each name: `unnest(CAST(:id AS bigint[]), …)`."""
    return f"unnest({', '.join(f'CAST(:{name} AS {type_}[])' for name, type_ in types.items())})"


def array_parameters(types: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    """The parameters of that SQL: `rows`, each with a value for each name."""
    columns = zip(types.items(), zip(*rows, strict=True), strict=True)
    return {
        name: _json_values(values) if type_ in ("JSON", "JSONB") else list(values) for (name, type_), values in columns
    }


def _json_values(values: Iterable[Any]) -> list[str | None]:
    return [None if value is None else json.dumps(value) for value in values]
