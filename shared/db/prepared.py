"""Prepared statements, for those whose planning takes longer than their execution.

psycopg2 does not prepare statements by itself, so these are PostgreSQL's PREPARE and EXECUTE
(https://www.postgresql.org/docs/current/sql-prepare.html). A prepared statement belongs to a session. Behind a pooler
in transaction mode (PgBouncer) nothing is prepared. If the pooler was not noticed and the statement is missing, this
process stops preparing it. (PgBouncer's `max_prepared_statements` concerns the protocol's statements, not these.)

A plan is made for tables as large as they are, and PostgreSQL keeps it while they grow, until it analyses them, which
may take minutes. One that was made for a handful of rows may read a whole index. So a connection plans a statement
again after 1, 2, 4 and so on executions, and after each thousand.
"""

import hashlib
import re
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import psycopg2
import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared.db.engine import Executor, sqlstate
from shared.db.pooler import is_pooled

log = structlog.get_logger(__name__)

_PARAMETER = re.compile(r"(?<!:):([a-z]\w*)")
#: The SQLSTATEs of a prepared statement that is missing, or is there already.
_POOLED = ("26000", "42P05")
#: A plan serves for at most this many executions.
MAX_EXECUTIONS = 1_000
# One plan for all parameters, or the server would plan each execution; and no scans of whole tables, nor of the whole
# index of the queue. These settings take 5 µs.
PLANNING = (
    "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"
)


class PreparedStatement:
    """A statement with named parameters (`:name`).

    It is prepared on connections in autocommit mode, where it is a transaction of its own. Elsewhere it is sent as
    text.

    Args:
        name: Unique in the process.
        types: The PostgreSQL type of each parameter.
        first: Statements that are sent with it, before it.
    """

    def __init__(self, name: str, sql: str, types: Mapping[str, str], *, first: str = "") -> None:
        self.sql = sql
        # Other releases may have prepared other statements on a connection that a pooler keeps.
        name += "_" + hashlib.sha256(sql.encode()).hexdigest()[:8]
        self._name = name
        names = list(types)
        body = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", sql)
        arguments = ", ".join(f"CAST(:{each} AS {type_})" for each, type_ in types.items())
        self._prepare = f"PREPARE {name} ({', '.join(types.values())}) AS {body}"
        execute = f"{PLANNING}; {first} EXECUTE {name} ({arguments})"
        self._execute = _PARAMETER.sub(r"%(\1)s", execute.replace("%", "%%"))
        self._plain = text(f"{first} {sql}")
        self._is_pooled = False

    def __call__(self, executor: Executor, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Execute it. Returns its rows, which have attributes with the names of the columns."""
        if self._is_pooled or not isinstance(executor, Connection) or not _is_preparable(executor):
            return executor.execute(self._plain, parameters).all()
        try:
            return self._run(executor, parameters)
        except DBAPIError as error:
            if sqlstate(error.orig) not in _POOLED:
                raise
            log.warning("statement not prepared: connections are pooled by transaction", statement=self._name)
            self._is_pooled = True
            return executor.execute(self._plain, parameters).all()

    def _run(self, connection: Connection, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Execute it by the driver: SQLAlchemy's share would be a third of the time of a lone prompt's statements."""
        executions: dict[str, int] = connection.info.setdefault("executions_of_prepared", {})
        number = executions.pop(self._name, 0)
        if _needs_a_plan(number):
            again = f"DEALLOCATE {self._name}; " if number else ""
            connection.exec_driver_sql(again + self._prepare.replace("%", "%%"))
        executions[self._name] = number + 1
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self._execute, parameters)
            rows = cursor.fetchall()
        except BaseException as error:
            # What SQLAlchemy does after its own: it raises its errors, and drops a connection that is lost, or was in
            # the middle of something. It has no public name.
            statement = self._execute if isinstance(error, psycopg2.Error) else None
            connection._handle_dbapi_exception(error, statement, dict(parameters), cursor, None)
        make_row = _row_maker(*(column[0] for column in cursor.description))
        cursor.close()
        return list(map(make_row, rows))


def _needs_a_plan(executions: int) -> bool:
    """Whether a statement that a connection has executed this often is planned again, or for the first time."""
    is_power_of_two = executions & (executions - 1) == 0
    return is_power_of_two or executions % MAX_EXECUTIONS == 0


@cache
def _row_maker(*names: str) -> Callable[[Iterable[Any]], tuple[Any, ...]]:
    return namedtuple("Row", names)._make  # type: ignore[attr-defined, no-any-return]


def _is_preparable(connection: Connection) -> bool:
    is_autocommit = bool(connection.connection.dbapi_connection.autocommit)  # type: ignore[union-attr]
    return is_autocommit and not is_pooled(connection)
