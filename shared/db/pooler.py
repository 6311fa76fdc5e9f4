"""Limits of statements, and the time zone, behind a pooler in transaction mode, such as PgBouncer.

There each transaction may run in another session of the server, so settings of a session cannot be relied upon:
PgBouncer refuses them when it is connected to, or ignores them (`ignore_startup_parameters`), and what a client sets
later would hold for other clients. Then each transaction sets its own, in the round trip of its first statement.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, event, text

log = structlog.get_logger(__name__)

#: An execution option: the statement cannot run in a transaction block, so it has no limits.
WITHOUT_LIMITS = "without_limits"
_POOLED = "is_pooled"
_IS_DUE = "limits_are_due"


class TransactionLimits:
    """Sets an engine's limits, and UTC, in each transaction, on connections whose session does not have them.

    Args:
        limits: PostgreSQL's settings and their values in milliseconds.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._is_logged = False
        values = {**limits, "timezone": "'UTC'"}
        self._prefix = "".join(f"SET LOCAL {name} = {value}; " for name, value in values.items())
        self._query = "SELECT " + " AND ".join(
            f"current_setting('{name}')::interval = interval '{value} ms'" for name, value in limits.items()
        )

    def listen(self, engine: Engine) -> None:
        event.listen(engine, "connect", self._examine)
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "before_cursor_execute", self._add, retval=True)

    def _examine(self, connection: Any, record: Any) -> None:
        """Find out whether the session has the limits that were asked for when connecting."""
        autocommit, connection.autocommit = connection.autocommit, True
        with connection.cursor() as cursor:
            cursor.execute(self._query)
            ((has_limits,),) = cursor.fetchall()
        connection.autocommit = autocommit
        if has_limits:
            return
        record.info[_POOLED] = True
        if not self._is_logged:
            self._is_logged = True
            log.info("postgres is behind a pooler, limits are set in each transaction")

    def _begin(self, connection: Connection) -> None:
        connection.info[_IS_DUE] = connection.info.get(_POOLED, False)

    def _add(
        self, connection: Connection, _: Any, statement: str, parameters: Any, context: Any, __: bool
    ) -> tuple[str, Any]:
        if not connection.info.get(_IS_DUE) or (context and context.execution_options.get(WITHOUT_LIMITS)):
            return statement, parameters
        # In autocommit mode each statement is a transaction.
        connection.info[_IS_DUE] = connection.connection.dbapi_connection.autocommit  # type: ignore[union-attr]
        return self._prefix + statement, parameters


def is_pooled(connection: Connection) -> bool:
    """Whether the connection leads to a pooler, as far as can be seen: its session lacks the limits."""
    return bool(connection.info.get(_POOLED))


@contextmanager
def unlimited(connection: Connection) -> Iterator[Connection]:
    """A connection in autocommit mode whose statements have no time limit, and run in no transaction block."""
    if is_pooled(connection):  # its sessions have no limits but those of the role
        yield connection.execution_options(**{WITHOUT_LIMITS: True})
        return
    connection.execute(text("SET statement_timeout = 0"))
    try:
        yield connection
    finally:
        # If the connection is lost, the error that ended it matters more.
        if not connection.invalidated:
            connection.execute(text("RESET statement_timeout"))
