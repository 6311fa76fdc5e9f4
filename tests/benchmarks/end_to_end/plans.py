"""How PostgreSQL finds what the hot queries ask for: the plans of the very statements that the service sends."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, delete, event, insert, select, text
from sqlalchemy.orm import Session

from shared.db.engine import make_engine
from shared.db.models import Prompt, User
from shared.prompts import claims, overdue, queries
from shared.settings import Settings
from tests.benchmarks.end_to_end.contenders import USERS

_WAITING = 50
_A_MINUTE = timedelta(minutes=1)

Sent = list[tuple[str, Any]]  #: statements with their parameters


def explained(settings: Settings) -> dict[str, str]:
    """EXPLAIN ANALYZE of the poll, the list, the claim and the reaper's query, with prompts waiting."""
    engine = make_engine(settings, application_name="benchmark", statement_timeout_ms=0)
    try:
        with engine.begin() as connection:
            user_id = connection.scalar(select(User.id).order_by(User.id).offset(USERS // 2).limit(1))
            prompt_id = connection.scalar(select(Prompt.id).where(Prompt.user_id == user_id).limit(1))
            waiting = _submit(connection, user_id)
        calls: dict[str, Callable[[Session], object]] = {
            "poll": lambda session: queries.get(session, user_id, prompt_id),
            "list": lambda session: queries.page(session, user_id, limit=20),
            "claim": lambda session: claims.claim(session, waiting, _A_MINUTE),
            "reaper": lambda session: overdue.requeue(session, grace=_A_MINUTE, limit=1_000),
        }
        found = {name: _plan(engine, call) for name, call in calls.items()}
        with engine.begin() as connection:
            connection.execute(delete(Prompt).where(Prompt.id.in_(waiting)))
        return found
    finally:
        engine.dispose()


def _submit(connection: Connection, user_id: int) -> list[int]:
    """Prompts that wait and are due."""
    waiting = {"user_id": user_id, "prompt_text": "Why?", "websocket": False, "request_id": "b", "attempt_limit": 5}
    rows = [{**waiting, "due_at": text("now()")}] * _WAITING
    return list(connection.scalars(insert(Prompt).values(rows).returning(Prompt.id)))


def _plan(engine: Engine, call: Callable[[Session], object]) -> str:
    """What the call sends, explained; nothing of it stays."""
    with Session(engine) as session, _listening(engine) as sent:
        call(session)
        session.rollback()
    lines = []
    with engine.connect() as connection:
        for statement, parameters in sent:
            query = statement.rpartition(";")[2]  # without what is set before it
            explain = f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {query}"
            lines += [row[0] for row in connection.exec_driver_sql(explain, parameters)]
        connection.rollback()
    return _shortened(lines)


def _shortened(lines: list[str]) -> str:
    """What tells how rows were found, how many, and by how many pages and ms in all."""
    found: list[str] = []
    for line in lines:
        is_step = "->" in line or not line.startswith(" ")
        is_total = "Buffers:" in line and not any("Buffers:" in each for each in found)
        if (is_step or is_total or "Cond:" in line or "Filter:" in line) and not line.startswith("Planning"):
            found.append(re.sub(r"'\{\d+,[\d,]+\}'", "'{…}'", line))
    return "\n".join(found)


@contextmanager
def _listening(engine: Engine) -> Iterator[Sent]:
    sent: Sent = []

    def note(_: Any, __: Any, statement: str, parameters: Any, ___: Any, ____: bool) -> None:
        sent.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)
