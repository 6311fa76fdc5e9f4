"""What workers do with prompts: each step is one function, and its caller commits.

    claim → (renew …) → complete | fail | reschedule | release

`shared/prompts/overdue.py` has what the reaper does with prompts whose worker did none of these.

An *attempt* is a fence: a worker changes a prompt only `WHERE status = 'processing' AND attempt = …`, so one that wakes
up late changes nothing. All times are the database's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, func, select, tuple_, update
from sqlalchemy.orm import Session

from shared.db.engine import Executor
from shared.db.models import CLAIMABLE, Change, Prompt, Status
from shared.db.prepared import PreparedStatement
from shared.prompts.completion import FinishResult, Outcome, finish
from shared.prompts.feed import FinishedPrompt

CLAIMED = (Status.PROCESSING,)


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
    in_group: bool = False  #: claimed together with others
    #: Its provider was unavailable, and its end decides whether it is available again. The end of the pause until then,
    #: which identifies this probe; None for all other claims.
    probe: datetime | None = None

    def waited(self) -> timedelta:
        """How long ago the user last queued it, about: by this host's clock."""
        return datetime.now(UTC) - self.queued_at

    @property
    def idempotency_key(self) -> str:
        """The same for each attempt until the user retries the prompt; different in every installation."""
        return f"promptwire-{self.id}-{self.queued_at.timestamp() * 1000:.0f}"


@dataclass(frozen=True, slots=True)
class Claimed:
    """The claims, and the number of prompts that were passed over: wake up workers for those."""

    claims: list[Claim]
    passed_over: int = 0

    @property
    def is_probe(self) -> bool:
        """Whether it is the probe of a provider's pause: all other prompts of the route wait for its end."""
        return any(claim.probe is not None for claim in self.claims)


def _next_prompts(priority: str, size: str, *, without: str = "") -> str:
    """The SQL that locks the next prompts of a priority."""
    return f"""
        SELECT id, turn, attempt FROM prompts
        WHERE route = :route AND priority = '{priority}' AND {CLAIMABLE} {without}
        ORDER BY turn, id
        LIMIT {size}
        FOR NO KEY UPDATE SKIP LOCKED
    """  # noqa: S608  # nosec B608


# It does not wait for the disk: if the server crashes at once, the claim may be forgotten, and the prompt is claimed
# again with the same attempt. Then either of the two may finish it; once, as always.
#
# The subqueries are materialized: one with SKIP LOCKED could be executed again, and lock more than its limit. A pause
# that is over is locked, so that only one claim becomes its probe: of the prompt that was attempted least, because one
# that its provider always refuses must not be each probe. The pause is prolonged, in case the probe's worker dies.
#
# A prompt that was attempted before is claimed alone: if it kills its worker, no other prompt loses an attempt. For the
# same reason a claim of several prompts raises their `attempt_limit`, and only `reschedule` lowers it again.
_CLAIM = PreparedStatement(
    "claim",
    f"""
    WITH probe AS MATERIALIZED (
        SELECT FROM routes WHERE route = :route AND paused_until <= now() FOR NO KEY UPDATE
    ), wanted AS MATERIALIZED (
        SELECT CASE
            WHEN EXISTS (SELECT FROM probe) THEN 0
            WHEN EXISTS (SELECT FROM routes WHERE route = :route AND paused_until IS NOT NULL) THEN 0
            ELSE :size
        END AS size
    ), probing AS MATERIALIZED (
        SELECT id, turn, attempt, priority FROM prompts
        WHERE route = :route AND {CLAIMABLE}
        ORDER BY attempt, priority, turn, id
        LIMIT CASE WHEN EXISTS (SELECT FROM probe) THEN 1 ELSE 0 END
        FOR NO KEY UPDATE SKIP LOCKED
    ), low_share AS MATERIALIZED (
        {_next_prompts("low", "least((SELECT size FROM wanted), :low_share)")}
    ), default_share AS MATERIALIZED (
        {_next_prompts("default", "(SELECT size FROM wanted) - (SELECT count(*) FROM low_share)")}
    ), low_rest AS MATERIALIZED (
        {
        _next_prompts(
            "low",
            "(SELECT size FROM wanted) - (SELECT count(*) FROM low_share) - (SELECT count(*) FROM default_share)",
            without="AND id <> ALL(ARRAY(SELECT id FROM low_share))",
        )
    }
    ), found AS MATERIALIZED (
        SELECT *, row_number() OVER (ORDER BY share, turn, id) AS claim_rank
        FROM (
            SELECT CASE WHEN :low_first THEN 1 ELSE 3 END AS share, 'low' AS priority, * FROM low_share
            UNION ALL SELECT 2, 'default', * FROM default_share
            UNION ALL SELECT 3, 'low', * FROM low_rest
            UNION ALL SELECT 0, priority, id, turn, attempt FROM probing
        ) AS shares
    ), chosen AS MATERIALIZED (
        SELECT * FROM found
        WHERE claim_rank = 1 OR attempt = 0 AND (SELECT attempt FROM found WHERE claim_rank = 1) = 0
    ), counted AS MATERIALIZED (
        SELECT count(*) > 1 AS in_group, (SELECT count(*) FROM found) - count(*) AS passed_over,
            coalesce(max(turn / 2) FILTER (WHERE priority = 'default'), 0) AS round_default,
            coalesce(max(turn / 2) FILTER (WHERE priority = 'low'), 0) AS round_low
        FROM chosen
    ), reached AS (
        INSERT INTO routes (route, round_default, round_low)
        SELECT :route, round_default, round_low FROM counted WHERE EXISTS (SELECT FROM chosen)
        ON CONFLICT (route) DO UPDATE SET
            round_default = greatest(routes.round_default, excluded.round_default),
            round_low = greatest(routes.round_low, excluded.round_low),
            paused_until = CASE WHEN EXISTS (SELECT FROM probe) THEN now() + :lease ELSE routes.paused_until END
        WHERE routes.round_default < excluded.round_default OR routes.round_low < excluded.round_low
            OR EXISTS (SELECT FROM probe)
    )
    UPDATE prompts
    SET status = 'processing', attempt = prompts.attempt + 1, due_at = now() + :lease,
        attempt_limit = attempt_limit + CASE WHEN in_group THEN 1 ELSE 0 END
    FROM chosen, counted, users
    WHERE prompts.id = chosen.id AND users.id = prompts.user_id
    RETURNING passed_over, claim_rank, prompts.id, prompts.attempt,
        prompts.attempt >= attempt_limit - CASE WHEN in_group THEN 1 ELSE 0 END AS final, user_id, prompt_text,
        websocket, request_id, embedder, cache, history, queued_at, traceparent, in_group,
        CASE WHEN EXISTS (SELECT FROM probe) THEN now() + :lease END AS probe
    """,  # noqa: S608  # nosec B608
    {"route": "text", "size": "bigint", "lease": "interval", "low_share": "bigint", "low_first": "boolean"},
    first="SET LOCAL synchronous_commit = off;",
)


def claim(
    executor: Executor, route: str, size: int, lease: timedelta, *, low_share: int = 0, low_first: bool = False
) -> Claimed:
    """Claim the next prompts of a route, at most `size`, in the order of their turns.

    `low_share` of them have low priority. If there are fewer prompts of one priority, those of the other are claimed
    instead. `low_first` says which priority has its first prompt claimed, even if that must be alone.
    """
    parameters = {"route": route, "size": size, "lease": lease, "low_share": low_share, "low_first": low_first}
    rows: list[Any] = sorted(_CLAIM(executor, parameters), key=lambda row: row.claim_rank)
    return Claimed([Claim(*row[2:]) for row in rows], rows[0].passed_over if rows else 0)


def renew(session: Session, held: Iterable[tuple[int, int]], lease: timedelta) -> set[tuple[int, int]]:
    """Extend the leases of these (id, attempt), and return those that still hold."""
    rows = session.execute(
        update(Prompt).where(_holds(held)).values(due_at=func.now() + lease).returning(Prompt.id, Prompt.attempt)
    )
    return {(row.id, row.attempt) for row in rows}


def still_held(session: Session, held: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return those of these (id, attempt) that still hold."""
    ours = tuple_(Prompt.id, Prompt.attempt).in_(list(held)) & (Prompt.status == Status.PROCESSING)
    return {(row.id, row.attempt) for row in session.execute(select(Prompt.id, Prompt.attempt).where(ours))}


def complete(executor: Executor, outcomes: Sequence[Outcome]) -> FinishResult:
    """Finish those of the prompts whose claims still hold.

    Those whose users' searches compare another embedder's vectors since the claim are left: they need another vector.
    """
    return finish(executor, outcomes, Change.COMPLETED, of=CLAIMED)


def fail(executor: Executor, claim: Claim, error: str) -> FinishedPrompt | None:
    """Finish the prompt as failed. Returns what to announce, or None if the claim no longer holds."""
    finished = finish(executor, [Outcome(claim.id, claim.attempt, error=error)], Change.FAILED, of=CLAIMED).finished
    return finished[0] if finished else None


def reschedule(session: Session, claim: Claim, delay: timedelta, *, counts: bool = True) -> bool:
    """Queue the prompt again after a failed attempt. Returns whether the claim held.

    It has no turn, so it cannot be claimed, until the reaper gives it one after `delay`. `counts` says whether the
    attempt counts.
    """
    later = func.now() + delay
    limit = Prompt.attempt_limit + int(not counts) - int(claim.in_group)
    changed = session.execute(
        update(Prompt)
        .where(_holds([(claim.id, claim.attempt)]))
        .values(status=Status.QUEUED, turn=None, due_at=later, not_before=later, attempt_limit=limit)
    )
    return bool(changed.rowcount)  # type: ignore[attr-defined]


def release(session: Session, held: Iterable[Claim], *, grace: timedelta) -> int:
    """Queue the prompts again, with the turns that they had. The attempts do not count.

    Returns how many claims held: wake up workers for them after the commit.
    """
    released = 0
    for in_group, members in groupby(sorted(held, key=lambda each: each.in_group), key=lambda each: each.in_group):
        limit = Prompt.attempt_limit if in_group else Prompt.attempt_limit + 1
        changed = session.execute(
            update(Prompt)
            .where(_holds((claim.id, claim.attempt) for claim in members))
            .values(status=Status.QUEUED, due_at=func.now() + grace, attempt_limit=limit)
        )
        released += changed.rowcount  # type: ignore[attr-defined]
    return released


def _holds(held: Iterable[tuple[int, int]]) -> ColumnElement[bool]:
    """The condition on a prompt that one of these (id, attempt) still holds it.

    The rows are locked in order, because another connection may be about to complete them.
    """
    ours = tuple_(Prompt.id, Prompt.attempt).in_(list(held)) & (Prompt.status == Status.PROCESSING)
    locked = select(Prompt.id).where(ours).order_by(Prompt.id).with_for_update(key_share=True)
    return Prompt.id.in_(locked.scalar_subquery()) & ours
