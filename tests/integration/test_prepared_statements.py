"""Prepared statements: their plans last, and their errors are SQLAlchemy's."""

import itertools
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg2.extensions
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DataError, OperationalError

from shared.db.engine import make_engine
from shared.db.models import DEFAULT_ROUTE
from shared.db.prepared import MAX_EXECUTIONS, PLANNING, PreparedStatement, _needs_a_plan
from shared.prompts import claims, submission
from shared.prompts.answer import Answer
from shared.prompts.completion import Outcome
from shared.prompts.submission import NewPrompt
from shared.settings import Settings
from tests.support import people

_MINUTE = timedelta(minutes=1)
_ADD_ENDED_PROMPTS = text("""
    INSERT INTO prompts (user_id, prompt_text, status, websocket, request_id, attempt, attempt_limit, completed_at)
    SELECT :user_id, 'What is a tide?', 'completed', false, 'r', 1, 5, now() FROM generate_series(1, 20000)
""")
_FIRST_COLUMNS = text("""
    SELECT relname, attname
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
""")
_DIVIDE = PreparedStatement("divide", "SELECT 10 / :by AS quotient, '%' AS percent", {"by": "bigint"})


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = make_engine(settings, application_name="test", autocommit=True)
    yield engine
    engine.dispose()


def test_plans_from_when_the_tables_were_empty_are_replaced_soon(settings: Settings, engine: Engine) -> None:
    """PostgreSQL would keep them until it analyses the tables: some read all entries of an index for each prompt.

    A good plan reads an index from a value of its first column on. (Probes of a provider's pause read the whole queue.)
    """
    user = people.make(settings, 1, "first")[0]
    with engine.connect() as connection:
        connection.execute(text("VACUUM prompts"))  # the rows of earlier tests: they would be in its statistics
        _answer_a_prompt(connection, user.id)
        connection.execute(_ADD_ENDED_PROMPTS, {"user_id": user.id})
        for _ in range(2):
            _answer_a_prompt(connection, user.id)
        first_columns = dict(connection.execute(_FIRST_COLUMNS).all())
        connection.execute(text(PLANNING.replace("LOCAL", "SESSION")))
        prepared = connection.execute(text("SELECT name, cardinality(parameter_types) FROM pg_prepared_statements"))
        plans = {name: _plan(connection.exec_driver_sql, name, count) for name, count in prepared.all()}
    assert sorted(name.rpartition("_")[0] for name in plans) == ["claim", "claim_within_limit", "finish", "submit"]
    scans = [scan for plan in plans.values() for scan in _scans(plan) if scan.get("Relation Name") != "routes"]
    assert [scan for scan in scans if scan["Node Type"] == "Seq Scan"] == []
    of_prompts = [scan for scan in scans if scan["Index Name"].startswith("prompts")]
    assert [
        (scan["Index Name"], scan.get("Index Cond"))
        for scan in of_prompts
        if first_columns[scan["Index Name"]] not in scan.get("Index Cond", "")
    ] == []
    assert {scan["Index Name"] for scan in of_prompts} >= {"prompts_pkey", "prompts_claimable"}


def test_a_plan_serves_for_a_thousand_executions_at_most() -> None:
    planned = [number for number in range(4_500) if _needs_a_plan(number)]
    assert planned[:6] == [0, 1, 2, 4, 8, 16]
    assert max(later - earlier for earlier, later in itertools.pairwise(planned)) <= MAX_EXECUTIONS


def _answer_a_prompt(connection: Connection, user_id: int) -> None:
    new = NewPrompt(user_id, "What is a tide?", True, "r")
    submission.submit(connection, [new], grace=_MINUTE, attempt_limit=5)
    (claim,) = claims.claim(connection, DEFAULT_ROUTE, 1, _MINUTE).claims
    claims.claim(connection, DEFAULT_ROUTE, 1, _MINUTE, ceiling=1)
    answer = Outcome(claim.id, claim.attempt, embedder="test", vector=b"\0\0\0\0", answer=Answer("a", "test"))
    assert claims.complete(connection, [answer]).finished


def _plan(execute: Any, name: str, parameters: int) -> dict[str, Any]:
    ((plans,),) = execute(f"EXPLAIN (FORMAT JSON) EXECUTE {name}({', '.join(['NULL'] * parameters)})").all()
    (explained,) = json.loads(plans) if isinstance(plans, str) else plans
    return explained["Plan"]


def _scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if node.get("Subplan Name") == "CTE probing":
        return
    if "Index Name" in node or node["Node Type"] == "Seq Scan":
        yield node
    for child in node.get("Plans", ()):
        yield from _scans(child)


def test_rows_have_the_names_of_the_columns(engine: Engine) -> None:
    with engine.connect() as connection:
        for _ in range(2):
            (row,) = _DIVIDE(connection, {"by": 5})
            assert (row.quotient, row.percent) == (2, "%")
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_errors_are_those_of_sqlalchemy(engine: Engine) -> None:
    with engine.connect() as connection:
        with pytest.raises(DataError, match="division by zero"):
            _DIVIDE(connection, {"by": 0})
        assert _DIVIDE(connection, {"by": 10})[0].quotient == 1


def test_a_lost_connection_is_replaced(engine: Engine) -> None:
    with engine.connect() as connection:
        _DIVIDE(connection, {"by": 1})
        pid = connection.connection.dbapi_connection.info.backend_pid  # type: ignore[union-attr]
        with engine.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
        with pytest.raises(OperationalError) as lost:
            _DIVIDE(connection, {"by": 1})
        assert lost.value.connection_invalidated
    with engine.connect() as connection:
        assert _DIVIDE(connection, {"by": 2})[0].quotient == 5


class _Stopped(BaseException):
    pass


class _InterruptedCursor(psycopg2.extensions.cursor):
    def fetchall(self) -> list[tuple[Any, ...]]:
        raise _Stopped


def test_an_interrupted_statement_costs_its_connection(engine: Engine) -> None:
    """A worker that is stopped while it waits for the server must not take that answer for the next statement's."""
    with engine.connect() as connection:
        _DIVIDE(connection, {"by": 1})
        connection.connection.dbapi_connection.cursor_factory = _InterruptedCursor  # type: ignore[union-attr]
        with pytest.raises(_Stopped):
            _DIVIDE(connection, {"by": 1})
        assert connection.invalidated
    with engine.connect() as connection:
        assert _DIVIDE(connection, {"by": 2})[0].quotient == 5
