"""PostgreSQL's plans of the hot queries, captured from the statements that the service itself sends."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, delete, event, insert, select, text
from sqlalchemy.orm import Session

from shared.db.engine import make_engine
from shared.db.models import DEFAULT_ROUTE, Prompt, User
from shared.prompts import claims, overdue, queries
from shared.settings import Settings
from tests.benchmarks.end_to_end.contenders import USERS

_WAITING_PROMPTS = 50
_A_MINUTE = timedelta(minutes=1)

MAX_PAGE_BYTES = 2 * 1024 * 1024

Statements = list[tuple[str, Any]]  #: statements with their parameters


def explained(settings: Settings) -> dict[str, str]:
    """Return EXPLAIN ANALYZE of the poll, the list, the claim and the reaper's query, with prompts waiting."""
    engine = make_engine(settings, application_name="benchmark", statement_timeout_ms=0)
    try:
        with engine.begin() as connection:
            user_id = connection.scalar(select(User.id).order_by(User.id).offset(USERS // 2).limit(1))
            prompt_id = connection.scalar(select(Prompt.id).where(Prompt.user_id == user_id).limit(1))
            waiting = _submit(connection, user_id)
        calls: dict[str, Callable[[Session], object]] = {
            "poll": lambda session: queries.get(session, user_id, prompt_id),
            "list": lambda session: queries.page(session, user_id, limit=20, max_bytes=MAX_PAGE_BYTES),
            "claim": lambda session: claims.claim(session, DEFAULT_ROUTE, _WAITING_PROMPTS, _A_MINUTE),
            "reaper": lambda session: overdue.queue_lapsed(session, grace=_A_MINUTE, limit=1_000),
        }
        plans = {name: _plan(engine, call) for name, call in calls.items()}
        with engine.begin() as connection:
            connection.execute(delete(Prompt).where(Prompt.id.in_(waiting)))
        return plans
    finally:
        engine.dispose()


def _submit(connection: Connection, user_id: int) -> list[int]:
    """Insert queued prompts that are due."""
    waiting = {"user_id": user_id, "prompt_text": "Why?", "websocket": False, "request_id": "b", "attempt_limit": 5}
    rows = [{**waiting, "turn": turn, "due_at": text("now()")} for turn in range(_WAITING_PROMPTS)]
    return list(connection.scalars(insert(Prompt).values(rows).returning(Prompt.id)))


def _plan(engine: Engine, call: Callable[[Session], object]) -> str:
    """Explain the statements that the call sends, and roll them back."""
    with Session(engine) as session, _capturing(engine) as statements:
        call(session)
        session.rollback()
    lines = []
    with engine.connect() as connection:
        for statement, parameters in statements:
            query = statement.rpartition(";")[2]  # without the SET statements before it
            explain = f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {query}"
            lines += [row[0] for row in connection.exec_driver_sql(explain, parameters)]
        connection.rollback()
    return _shorten(lines)


def _shorten(lines: list[str]) -> str:
    """Keep the lines that show how rows are found, how many, and the total pages and ms."""
    kept: list[str] = []
    for line in lines:
        is_step = "->" in line or not line.startswith(" ")
        is_total = "Buffers:" in line and not any("Buffers:" in each for each in kept)
        if (is_step or is_total or "Cond:" in line or "Filter:" in line) and not line.startswith("Planning"):
            kept.append(re.sub(r"'\{\d+,[\d,]+\}'", "'{…}'", line))
    return "\n".join(kept)


@contextmanager
def _capturing(engine: Engine) -> Iterator[Statements]:
    statements: Statements = []

    def note(_: Any, __: Any, statement: str, parameters: Any, ___: Any, ____: bool) -> None:
        statements.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)
