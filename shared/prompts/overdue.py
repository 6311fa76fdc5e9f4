"""The reaper's queries: queueing prompts again whose leases have lapsed, and failing those that cannot be answered.

Each step is one function, and its caller commits, and wakes up workers afterwards. Any number of reapers may run at
once.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, func, select, text, update
from sqlalchemy.orm import Session

from shared.db.engine import Executor
from shared.db.models import CLAIMABLE, Change, Prompt, Status
from shared.prompts import provider_pause
from shared.prompts.claims import CLAIMED
from shared.prompts.completion import Outcome, finish
from shared.prompts.feed import FinishedPrompt

_GAVE_UP = "Gave up: every attempt ended without an answer."
_NO_MODEL = "Gave up: the model {route} has not been there for {seconds:g} seconds."
_WAITED_TOO_LONG = "Gave up: the provider was unavailable for {seconds:g} seconds. Its last error: {detail}"

# The routes of queued prompts are found by one look into the index for each.
_GONE = f"""
    WITH RECURSIVE queued AS (
        (SELECT route FROM prompts WHERE {CLAIMABLE} ORDER BY route LIMIT 1)
        UNION ALL
        SELECT (SELECT route FROM prompts WHERE {CLAIMABLE} AND route > queued.route ORDER BY route LIMIT 1)
        FROM queued WHERE queued.route IS NOT NULL
    ), gone AS (
        SELECT route FROM queued
        WHERE route <> ALL(CAST(:models AS text[]))
            AND NOT EXISTS (SELECT FROM prompts WHERE prompts.route = queued.route AND status = 'processing')
    )
"""  # noqa: S608  # nosec B608

_GONE_MODELS = text(f"{_GONE} SELECT route FROM gone")  # noqa: S608  # nosec B608
_WITHOUT_MODEL = text(f"""
    {_GONE}
    SELECT id, attempt, route FROM gone JOIN prompts USING (route)
    WHERE {CLAIMABLE} AND queued_at < now() - CAST(:patience AS interval)
    ORDER BY id
    LIMIT :limit
""")  # noqa: S608  # nosec B608


def queue_lapsed(session: Session, *, grace: timedelta, limit: int) -> dict[str, int]:
    """Queue prompts again whose leases have lapsed, longest first; they keep their turns.

    Returns how many, by route. Prompts that another reaper has locked are skipped.
    """
    lapsed = (
        select(Prompt.id)
        .where(_is_lapsed(), Prompt.attempt < Prompt.attempt_limit)
        .order_by(Prompt.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("lapsed")
    )
    routes = session.scalars(
        update(Prompt)
        .where(Prompt.id == lapsed.c.id)
        .values(status=Status.QUEUED, due_at=func.now() + grace)
        .returning(Prompt.route)
        .execution_options(synchronize_session=False)
    )
    return Counter(routes)


def exhausted(session: Session, *, limit: int) -> Sequence[int]:
    """The prompts whose last attempt lapsed; `fail_exhausted` finishes them."""
    return session.scalars(select(Prompt.id).where(_is_exhausted()).limit(limit)).all()


def fail_exhausted(session: Session, prompt_id: int) -> FinishedPrompt | None:
    """Fail a prompt whose last attempt lapsed. Returns what to announce, or None if that is no longer so."""
    attempt = session.scalar(select(Prompt.attempt).where(Prompt.id == prompt_id, _is_exhausted()).with_for_update())
    if attempt is None:
        return None
    return finish(session, [Outcome(prompt_id, attempt, error=_GAVE_UP)], Change.FAILED, of=CLAIMED).finished[0]


def fail_waiting_too_long(session: Session, patience: timedelta, *, limit: int) -> list[FinishedPrompt]:
    """Fail queued prompts that have waited longer than `patience` for a provider that was unavailable all the time.

    Returns what to announce.
    """
    outcomes = [
        Outcome(
            prompt.id,
            prompt.attempt,
            error=_WAITED_TOO_LONG.format(seconds=patience.total_seconds(), detail=prompt.detail),
        )
        for prompt in provider_pause.find_waiting_too_long(session, patience, limit=limit)
    ]
    if not outcomes:
        return []
    return finish(session, outcomes, Change.FAILED, of=(Status.QUEUED,)).finished


def fail_without_model(
    session: Session, models: Sequence[str], patience: timedelta, *, limit: int
) -> list[FinishedPrompt]:
    """Fail queued prompts that have waited longer than `patience` for a model route that is none of `models`.

    Returns what to announce. As long as a prompt of the route is answered, some worker has the model: its MODELS_FILE
    is newer.
    """
    parameters = {"models": list(models), "patience": patience, "limit": limit}
    waiting = session.execute(_WITHOUT_MODEL, parameters)
    outcomes = [
        Outcome(each.id, each.attempt, error=_NO_MODEL.format(route=each.route, seconds=patience.total_seconds()))
        for each in waiting
    ]
    return finish(session, outcomes, Change.FAILED, of=(Status.QUEUED,)).finished if outcomes else []


def find_gone_models(executor: Executor, models: Sequence[str]) -> Sequence[str]:
    """The model routes of queued prompts that are none of `models`, and that no worker answers."""
    return executor.execute(_GONE_MODELS, {"models": list(models)}).scalars().all()


def _is_lapsed() -> ColumnElement[bool]:
    return and_(Prompt.status == Status.PROCESSING, Prompt.due_at <= func.now())


def _is_exhausted() -> ColumnElement[bool]:
    return and_(_is_lapsed(), Prompt.attempt >= Prompt.attempt_limit)
