"""Admins' lists in a large installation: each reads few pages, however many prompts there are."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.orm import Session

from shared.accounts import audit, overview, usage
from shared.accounts.usage import UsageBy
from shared.db.engine import make_engine
from shared.db.models import Action
from shared.operators import operations, worker_hosts
from shared.operators.filters import OperationFilter
from shared.prompts import overview as prompts_overview
from tests.support.servers import Servers

USERS, PROMPTS = 100, 40_000
TODAY, LONG_AGO = datetime.now(UTC).date(), datetime(2020, 1, 1, tzinfo=UTC)
#: Pages of 8 KiB. All prompts together have thousands.
MAX_PAGES = 400

_FILL = f"""
INSERT INTO users (username, password_hash) SELECT 'user-' || n, '' FROM generate_series(1, {USERS}) AS n;
INSERT INTO api_keys (user_id, name, key_hash, prefix, scopes)
SELECT id, 'key', convert_to(id::text, 'UTF8'), 'pw_', '{{}}' FROM users;
INSERT INTO prompts (user_id, prompt_text, status, websocket, request_id, attempt_limit, due_at, completed_at)
SELECT 1 + n % {USERS}, repeat('x', 200),
    CASE WHEN n % 400 = 0 THEN 'queued' WHEN n % 200 = 0 THEN 'failed' ELSE 'completed' END, false, '', 5,
    CASE WHEN n % 400 = 0 THEN now() END, CASE WHEN n % 400 > 0 THEN now() END
FROM generate_series(1, {PROMPTS}) AS n;
INSERT INTO feed (user_id, seq, prompt_id, change, error, at)
SELECT 1 + n % {USERS}, n, n, CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'completed' END,
    CASE WHEN n % 100 = 0 THEN 'error ' || n % 7 END, now() - ({PROMPTS} - n) * interval '10 s'
FROM generate_series(1, {PROMPTS}) AS n;
INSERT INTO usage (user_id, day, key_id, route, prompts, prompt_tokens)
SELECT u, now()::date - d, 0, 'default', 1, 1 FROM generate_series(1, {USERS}) AS u, generate_series(0, 100) AS d;
INSERT INTO audit (actor_id, action, user_id, address)
SELECT 1, 'logins.ended', 1 + n % {USERS}, '' FROM generate_series(1, {PROMPTS // 4}) AS n;
ANALYZE;
"""  # noqa: S608


@pytest.fixture(scope="module")
def large(servers: Servers) -> Iterator[Engine]:
    """An engine of a database with many prompts."""
    with servers.database() as name:
        engine = make_engine(servers.settings(name), application_name="test", statement_timeout_ms=0)
        with engine.begin() as connection:
            connection.execute(text(_FILL))
        yield engine
        engine.dispose()


LISTS = {
    "users": lambda connection: overview.list_users(connection, limit=20, before=10**9),
    "one user": lambda connection: overview.get_user(connection, 7),
    "keys": lambda connection: overview.list_keys(connection, limit=20, before=10**9),
    "keys of a user": lambda connection: overview.list_keys(connection, limit=20, before=10**9, user_id=7),
    "usage": lambda connection: usage.report(connection, UsageBy.USER, TODAY, TODAY),
    "load": prompts_overview.load,
    "running": prompts_overview.running,
    "providers": prompts_overview.providers,
    "failures": lambda connection: prompts_overview.failures(connection, LONG_AGO),
    "operations": lambda connection: operations.list_all(connection, limit=20, before=10**9),
    "workers": worker_hosts.list_all,
    "prompts to retry": lambda connection: operations.count(Session(connection), Action.RETRY, OperationFilter()),
    "prompts to cancel": lambda connection: operations.count(
        Session(connection), Action.CANCEL, OperationFilter(model="default")
    ),
    **{
        f"prompts to retry by {name}": partial(
            lambda wanted, connection: operations.count(Session(connection), Action.RETRY, wanted),
            OperationFilter(**{name: value}),
        )
        for name, value in {
            "user": 7,
            "error": "error",
            "ids": [200, 600],
            "batch": 1,
            "operation": 1,
            "since": LONG_AGO,
        }.items()
    },
    "audit": lambda connection: audit.list_entries(connection, limit=20, before=10**9),
    "audit of a user": lambda connection: audit.list_entries(connection, limit=20, before=10**9, user_id=7),
}


def pages_read(connection: Connection, statement: str, parameters: object) -> int:
    """How many pages the statement reads, from the plan that PostgreSQL has executed."""
    plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {statement}", parameters)
    lines = [line for (line,) in plan]
    buffers = next(line for line in lines if "Buffers:" in line)
    return sum(int(count) for count in re.findall(r"(?:hit|read)=(\d+)", buffers))


@pytest.mark.parametrize("name", LISTS)
def test_a_list_for_admins_is_one_statement_that_reads_few_pages(large: Engine, name: str) -> None:
    executed: list[tuple[str, object]] = []

    def note(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        if not statement.startswith("SET LOCAL"):
            executed.append((statement, parameters))

    with large.connect() as connection:
        event.listen(large, "before_cursor_execute", note)
        LISTS[name](connection)
        event.remove(large, "before_cursor_execute", note)
        [(statement, parameters)] = executed
        assert pages_read(connection, statement, parameters) < MAX_PAGES


def test_all_prompts_have_more_pages_than_a_list_may_read(large: Engine) -> None:
    with large.connect() as connection:
        assert connection.scalar(text("SELECT pg_relation_size('prompts') / 8192")) > 3 * MAX_PAGES
