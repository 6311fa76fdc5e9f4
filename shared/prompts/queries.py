"""Reading a user's prompts. `shared/prompts/submission.py` changes them."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, Self

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Select,
    and_,
    bindparam,
    func,
    literal_column,
    select,
    text,
)

from shared.db.engine import Executor
from shared.db.models import COUNTED, Prompt, Status, User
from shared.errors import PromptNotFoundError
from shared.prompts import scheduling
from shared.prompts.answer import Answer
from shared.prompts.filters import ALL_PROMPTS, PromptFilter
from shared.prompts.provider_pause import Waiting
from shared.prompts.sizes import PROMPT_BYTES


class PromptRow(NamedTuple):
    """A prompt as its user sees it. Each field is a column, but for `answer` and those after it.

    `position` and `waiting_for` are known only after `with_queue_state`, `request` if a single prompt was read.
    """

    id: int
    prompt_text: str
    status: str
    websocket: bool
    attempt: int
    error: str | None
    seq: int | None
    cache: str | None
    history: int
    route: str
    priority: str
    metadata: dict[str, str] | None
    api: str | None  #: a `FrontApi`
    created_at: datetime
    completed_at: datetime | None
    emptied_at: datetime | None  #: when its texts were removed, because of its age
    answer: Answer
    position: int | None = None  #: in line; None unless it is queued and has a turn
    waiting_for: Waiting | None = None
    #: What it asks of the model besides its text, a `ModelRequest` as JSON. Lists leave it out: it may be long.
    request: dict[str, Any] | None = None

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """The prompt in a row of COLUMNS, which others may follow."""
        values = [*row[:_OWN_COLUMNS], Answer(*row[_OWN_COLUMNS : len(COLUMNS)])]
        return cls(*values)


# Statements that requests wait for are built once: building one costs more than running it.
_prompts = Prompt.__table__.c
_OWN_COLUMNS = PromptRow._fields.index("answer")
COLUMNS: list[ColumnElement[Any]] = [_prompts[name] for name in (*PromptRow._fields[:_OWN_COLUMNS], *Answer._fields)]
_OF_USER = _prompts.user_id == bindparam("user_id")
_IS_ANSWERED = (_prompts.status == Status.COMPLETED) & _prompts.emptied_at.is_(None)
_ONE = select(*COLUMNS, _prompts.request).where(_prompts.id == bindparam("prompt_id"), _OF_USER)
_ALL = select(*COLUMNS).where(_prompts.id == func.any(bindparam("prompt_ids", type_=ARRAY(BigInteger))))
_ONE_WITH_SEQ = _ONE.add_columns(User.__table__.c.seq.label("newest")).join_from(
    Prompt.__table__,
    User.__table__,
    and_(User.__table__.c.id == _prompts.user_id, User.__table__.c.deleted_at.is_(None)),
)
_COMPLETED = select(*COLUMNS).where(_prompts.id.in_(bindparam("prompt_ids", expanding=True)), _OF_USER, _IS_ANSWERED)
_UNFINISHED = select(func.count()).select_from(
    select(_prompts.id).where(_OF_USER, text(COUNTED)).limit(bindparam("limit")).subquery()
)
_SIZE: ColumnElement[int] = literal_column(PROMPT_BYTES)


class Page(NamedTuple):
    """Prompts, and whether more follow them."""

    prompts: list[PromptRow]
    has_more: bool


def _within_bytes(rows: Select[Any], order: str, *, descending: bool = False) -> Select[Any]:
    """Select the first of these rows whose sizes add up to at most `:max_bytes`; at least one.

    The rows have COLUMNS, `size` and the column `order`. The result has COLUMNS and `total`, the number of all rows.
    PostgreSQL adds up the sizes before it reads the texts, so it never reads those of the other rows.
    """
    inner = rows.subquery("found")
    key = inner.c[order].desc() if descending else inner.c[order]
    sums = select(
        inner, func.sum(inner.c.size).over(order_by=key).label("running"), func.count().over().label("total")
    ).subquery("sums")
    key = sums.c[order].desc() if descending else sums.c[order]
    columns = [sums.c[column.name] for column in COLUMNS]
    is_within = (sums.c.running <= bindparam("max_bytes", type_=BigInteger)) | (sums.c.running == sums.c.size)
    return select(*columns, sums.c.total).where(is_within).order_by(key)


@cache
def _page(*conditions: str, ascending: bool) -> Select[Any]:
    rows = select(*COLUMNS, _SIZE.label("size")).where(_OF_USER, *map(text, conditions))
    order = _prompts.id.asc() if ascending else _prompts.id.desc()
    return _within_bytes(rows.order_by(order).limit(bindparam("limit")), "id", descending=not ascending)


@cache
def _matching(*conditions: str) -> Select[Any]:
    return select(_prompts.id).where(_OF_USER, _IS_ANSWERED, *map(text, conditions))


_ranks = (
    func.unnest(bindparam("prompt_ids", type_=ARRAY(BigInteger)))
    .table_valued("id", with_ordinality="rank", name="ranks")
    .render_derived()
)
_RANKED = _within_bytes(
    select(*COLUMNS, _SIZE.label("size"), _ranks.c.rank)
    .join_from(_ranks, Prompt.__table__, _prompts.id == _ranks.c.id)
    .where(_OF_USER, _IS_ANSWERED),
    "rank",
)


def get(executor: Executor, user_id: int, prompt_id: int) -> PromptRow:
    """The user's prompt.

    Raises:
        PromptNotFoundError: it does not exist, or belongs to another user.
    """
    row = executor.execute(_ONE, {"user_id": user_id, "prompt_id": prompt_id}).first()
    if row is None:
        raise PromptNotFoundError
    return _with_request(row)


def get_all(executor: Executor, prompt_ids: Sequence[int]) -> dict[int, PromptRow]:
    """Those of these prompts that exist, of any user, by id."""
    return {row.id: PromptRow.from_row(row) for row in executor.execute(_ALL, {"prompt_ids": list(prompt_ids)})}


def get_with_seq(executor: Executor, user_id: int, prompt_id: int) -> tuple[PromptRow, int]:
    """The user's prompt, and the newest number of the user's feed at the same moment.

    Raises:
        PromptNotFoundError: it does not exist, belongs to another user, or the account is deleted.
    """
    row = executor.execute(_ONE_WITH_SEQ, {"user_id": user_id, "prompt_id": prompt_id}).first()
    if row is None:
        raise PromptNotFoundError
    return _with_request(row), row.newest


def _with_request(row: Any) -> PromptRow:
    return PromptRow.from_row(row)._replace(request=row.request)


def page(
    executor: Executor,
    user_id: int,
    *,
    limit: int,
    max_bytes: int,
    matching: PromptFilter = ALL_PROMPTS,
    ascending: bool = False,
    start_after: int | None = None,
    conditions: Sequence[str] = (),
) -> Page:
    """The user's prompts that match the filter, newest first, or oldest first if `ascending`.

    These are at most `limit`, whose texts have at most `max_bytes` of UTF-8 together, but at least one.

    Args:
        start_after: The id after which the page begins, in this order.
        conditions: More conditions in SQL.
    """
    all_conditions = [*matching.conditions, *conditions]
    if start_after is not None:
        all_conditions.append(f"prompts.id {'>' if ascending else '<'} :start_after")
    # One extra row shows whether there is a next page.
    parameters = {"user_id": user_id, "limit": limit + 1, "max_bytes": max_bytes, "start_after": start_after}
    statement = _page(*all_conditions, ascending=ascending)
    rows = executor.execute(statement, parameters | matching.parameters).all()
    prompts = [PromptRow.from_row(row) for row in rows[:limit]]
    return Page(prompts, bool(rows) and rows[0].total > len(prompts))


def ranked(executor: Executor, user_id: int, prompt_ids: Sequence[int], *, max_bytes: int) -> Page:
    """Those of these prompts that are the user's and completed, and not emptied since, in this order.

    It ends where the texts would have more than `max_bytes` of UTF-8 together, but has at least one.
    """
    parameters = {"user_id": user_id, "prompt_ids": list(prompt_ids), "max_bytes": max_bytes}
    rows = executor.execute(_RANKED, parameters).all()
    return Page([PromptRow.from_row(row) for row in rows], bool(rows) and rows[0].total > len(rows))


def matching(executor: Executor, user_id: int, wanted: PromptFilter, among: Sequence[int] | None = None) -> list[int]:
    """The ids of the user's completed prompts, not emptied since, that match the filter.

    Args:
        among: Look only at these prompts.
    """
    conditions = wanted.conditions if among is None else (*wanted.conditions, "prompts.id = ANY(:among)")
    parameters = {"user_id": user_id, "among": among, **wanted.parameters}
    return list(executor.scalars(_matching(*conditions), parameters))


def completed(executor: Executor, user_id: int, prompt_ids: Sequence[int]) -> dict[int, PromptRow]:
    """Those of these prompts that are the user's and completed, and not emptied since, by id."""
    rows = executor.execute(_COMPLETED, {"user_id": user_id, "prompt_ids": prompt_ids})
    return {row.id: PromptRow.from_row(row) for row in rows}


def with_queue_state(executor: Executor, prompts: Sequence[PromptRow]) -> list[PromptRow]:
    """The prompts; those that are queued have their positions, and why they wait."""
    found: dict[int, PromptRow] = {}
    by_route = sorted((prompt for prompt in prompts if prompt.status == Status.QUEUED), key=attrgetter("route"))
    for route, members in groupby(by_route, key=attrgetter("route")):
        queued = {prompt.id: prompt for prompt in members}
        for prompt_id, state in scheduling.queue_states(executor, route, list(queued)).items():
            found[prompt_id] = queued[prompt_id]._replace(**state._asdict())
    return [found.get(prompt.id, prompt) for prompt in prompts]


def count_unfinished(executor: Executor, user_id: int, limit: int) -> int:
    """How many prompts of the user have not ended, at most `limit`. Lines of batches do not count."""
    return executor.execute(_UNFINISHED, {"user_id": user_id, "limit": limit}).scalar_one()
