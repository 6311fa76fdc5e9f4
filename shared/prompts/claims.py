"""What workers do with prompts: each step is one function, and its caller commits.

    claim → (renew …) → complete | fail | reschedule | release

Each of the last four also records what the attempt used. If the claim was lost meanwhile, `settle` does.
`shared/prompts/overdue.py` has what the reaper does with prompts whose worker did none of these.

An *attempt* is a fence: a worker changes a prompt only `WHERE status = 'processing' AND attempt = …`, so one that wakes
up late changes nothing. All times are the database's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, func, select, text, tuple_, update
from sqlalchemy.orm import Session

from shared.accounts.metering import FREE, Meter, Prices
from shared.db.arrays import array_parameters
from shared.db.engine import Executor
from shared.db.models import DEFAULT_ROUTE, Change, Priority, Prompt, Status
from shared.prompts.claim_statements import CLAIM, CLAIM_WITHIN_LIMIT, SETTLE, SETTLE_TYPES
from shared.prompts.completion import FinishResult, Outcome, finish
from shared.prompts.feed import FinishedPrompt

CLAIMED = (Status.PROCESSING,)
_SETTLE = text(SETTLE)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to finish one attempt at a prompt, until its lease lapses."""

    id: int  #: the prompt's
    attempt: int
    final: bool  #: no attempt follows this one
    user_id: int
    prompt_text: str
    websocket: bool
    request_id: str
    embedder: str | None  #: the name of the one whose vectors the user's searches compare; None without vectors
    cache: str | None  #: a `CacheUse`
    history: int  #: how many earlier exchanges the generator is given
    queued_at: datetime  #: when the user last queued it
    traceparent: str | None  #: of the trace that its spans belong to
    claimed_at: datetime
    is_limited: bool = False  #: its route has a limit of prompts at a time (see `shared/prompts/concurrency.py`)
    in_group: bool = False  #: claimed together with others
    #: Its provider was unavailable, and its end decides whether it is available again. The end of the pause until then,
    #: which identifies this probe; None for all other claims.
    probe: datetime | None = None
    key_id: int | None = None  #: the API key that submitted it; None for a login
    route: str = DEFAULT_ROUTE
    request: dict[str, Any] | None = None  #: a `ModelRequest` as JSON
    request_hash: bytes | None = None
    priority: str = Priority.DEFAULT
    meter: Meter = field(default_factory=Meter, compare=False)  #: what the attempt uses

    def waited(self) -> timedelta:
        """How long ago the user last queued it, about: by this host's clock."""
        return datetime.now(UTC) - self.queued_at

    @property
    def idempotency_key(self) -> str:
        """The same for each attempt until the user retries the prompt; different in every installation."""
        return f"promptwire-{self.id}-{self.queued_at.timestamp() * 1000:.0f}"


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim took.

    Args:
        passed_over: How many prompts it did not take, but locked: wake up workers for those.
        is_limited: Whether the route has a limit of prompts at a time.
        ready: With such a limit: how many more prompts have free slots.
    """

    claims: list[Claim]
    passed_over: int = 0
    is_limited: bool = False
    ready: int = 0

    @property
    def is_probe(self) -> bool:
        """Whether it is the probe of a provider's pause: all other prompts of the route wait for its end."""
        return any(claim.probe is not None for claim in self.claims)


def claim(
    executor: Executor,
    route: str,
    size: int,
    lease: timedelta,
    *,
    low_share: int = 0,
    low_limit: int | None = None,
    low_first: bool = False,
    ceiling: int | None = None,
    prices: Prices = FREE,
) -> Claimed:
    """Claim the next prompts of a route, at most `size`, and as many as it has free slots, in the order of their turns.

    `low_share` of them have low priority. If there are fewer prompts of one priority, those of the other are claimed
    instead, but not more than `low_limit` of low priority. `low_first` says which priority has its first prompt
    claimed, even if that must be alone. `ceiling` is the largest number of prompts of the route that run at a time,
    `prices` are those of the route.
    """
    parameters = {"route": route, "size": size, "lease": lease, "low_share": low_share, "low_first": low_first}
    parameters["low_limit"] = size if low_limit is None else low_limit
    rows: list[Any] = []
    if ceiling is None:
        rows = list(CLAIM(executor, parameters))
    if not rows:  # nothing to claim, or the route is limited
        rows = list(CLAIM_WITHIN_LIMIT(executor, {**parameters, "ceiling": ceiling}))
    first = rows[0]
    found = [] if first.id is None else sorted(rows, key=lambda row: row.claim_rank)
    held = [Claim(*(*row[4:], Meter(prices))) for row in found]
    return Claimed(held, first.passed_over, first.limited, first.ready)


def renew(session: Session, held: Iterable[tuple[int, int]], lease: timedelta) -> set[tuple[int, int]]:
    """Extend the leases of these (id, attempt), and return those that still hold."""
    rows = session.execute(
        update(Prompt)
        .where(_is_held_and_locked(held))
        .values(due_at=func.now() + lease)
        .returning(Prompt.id, Prompt.attempt)
    )
    return {(row.id, row.attempt) for row in rows}


def still_held(session: Session, held: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return those of these (id, attempt) that still hold."""
    rows = session.execute(select(Prompt.id, Prompt.attempt).where(_is_held(held)))
    return {(row.id, row.attempt) for row in rows}


def complete(executor: Executor, outcomes: Sequence[Outcome]) -> FinishResult:
    """Finish those of the prompts whose claims still hold.

    Those whose users' searches compare another embedder's vectors since the claim are left: they need another vector.
    """
    return finish(executor, outcomes, Change.COMPLETED, of=CLAIMED)


def fail(executor: Executor, claim: Claim, error: str) -> FinishedPrompt | None:
    """Finish the prompt as failed. Returns what to announce, or None if the claim no longer holds."""
    outcome = Outcome(claim.id, claim.attempt, error=error, used=claim.meter.used)
    finished = finish(executor, [outcome], Change.FAILED, of=CLAIMED).finished
    if not finished:
        settle(executor, [claim])
        return None
    claim.meter.reset()
    return finished[0]


def reschedule(session: Session, claim: Claim, delay: timedelta, *, counts: bool = True) -> bool:
    """Queue the prompt again after a failed attempt. Returns whether the claim held.

    It has no turn, so it cannot be claimed, until the reaper gives it one after `delay`. `counts` says whether the
    attempt counts.
    """
    later = func.now() + delay
    limit = Prompt.attempt_limit + int(not counts) - int(claim.in_group)
    changed = session.execute(
        update(Prompt)
        .where(_is_held_and_locked([(claim.id, claim.attempt)]))
        .values(status=Status.QUEUED, turn=None, due_at=later, not_before=later, attempt_limit=limit)
    )
    settle(session, [claim])
    return bool(changed.rowcount)  # type: ignore[attr-defined]


def release(session: Session, held: Iterable[Claim], *, grace: timedelta) -> int:
    """Queue the prompts again, with the turns that they had. The attempts do not count.

    Returns how many claims held: wake up workers for them after the commit.
    """
    released, held = 0, list(held)
    for in_group, members in groupby(sorted(held, key=lambda each: each.in_group), key=lambda each: each.in_group):
        limit = Prompt.attempt_limit if in_group else Prompt.attempt_limit + 1
        changed = session.execute(
            update(Prompt)
            .where(_is_held_and_locked((claim.id, claim.attempt) for claim in members))
            .values(status=Status.QUEUED, due_at=func.now() + grace, attempt_limit=limit)
        )
        released += changed.rowcount  # type: ignore[attr-defined]
    settle(session, held)
    return released


def settle(executor: Executor, ended: Iterable[Claim]) -> None:
    """Record what these attempts used, unless that is recorded, and release what they reserved.

    It does not matter whether their claims held to the end. Their meters are reset: an attempt whose prompt was deleted
    must not be recorded twice.
    """
    ended = list(ended)
    if not ended:
        return
    rows = [(each.id, each.attempt, each.user_id, each.key_id or 0, each.route, *each.meter.used) for each in ended]
    executor.execute(_SETTLE, array_parameters(SETTLE_TYPES, rows))
    for claim in ended:
        claim.meter.reset()


def _is_held(held: Iterable[tuple[int, int]]) -> ColumnElement[bool]:
    """The condition on a prompt that one of these (id, attempt) still holds it."""
    return tuple_(Prompt.id, Prompt.attempt).in_(list(held)) & (Prompt.status == Status.PROCESSING)


def _is_held_and_locked(held: Iterable[tuple[int, int]]) -> ColumnElement[bool]:
    """The same condition, which also locks the rows in order: another connection may be about to complete them."""
    is_held = _is_held(held)
    locked = select(Prompt.id).where(is_held).order_by(Prompt.id).with_for_update(key_share=True)
    return Prompt.id.in_(locked.scalar_subquery()) & is_held
