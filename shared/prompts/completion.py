"""Finishing prompts: the answer, the user's next feed number and its entry, its webhook deliveries, the vector, and
what the attempt used, all or nothing.

An answer whose prompt could not be embedded is stored without a vector. `shared/search/missing_vectors.py` adds it.

One statement does it, for one prompt or many, so a lone prompt takes one round trip and no explicit transaction.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row
from sqlalchemy.orm import Session

from shared.accounts import budgets
from shared.accounts.metering import Used
from shared.accounts.usage import add_to_ledger
from shared.db import advisory_locks
from shared.db.arrays import array_parameters, column_types, unnest
from shared.db.engine import Executor
from shared.db.models import UNFINISHED, Change, Prompt, Status
from shared.db.prepared import PreparedStatement
from shared.prompts.answer import Answer
from shared.prompts.feed import FinishedPrompt


class Outcome(NamedTuple):
    """How an attempt at a prompt ends: with an answer, with an error, or with neither (cancelled).

    A completed prompt without a vector gets one later.
    """

    id: int  #: the prompt's
    attempt: int
    error: str | None = None
    embedder: str | None = None  #: the name of the one that made `vector`
    vector: bytes | None = None  #: little-endian float32
    expected_embedder: str | None = None  #: the embedder of the user's vectors when this one was made
    #: What the attempt used. Unknown unless its worker finishes it: then that may still record it (`claims.settle`).
    used: Used = Used()
    answer: Answer = Answer()


class FinishResult(NamedTuple):
    """What a call of `finish` did.

    `finished` is what to announce after the commit, in the order of the prompts' ids. `other_embedders` has, by the
    ids of prompts that are not finished, the embedder whose vectors their users' searches compare by now. `is_reduced`
    says whether a provider has reduced the concurrency of its route.
    """

    finished: list[FinishedPrompt]
    other_embedders: dict[int, str | None]
    is_reduced: bool = False


_TYPES = {
    **column_types(Prompt.__table__, ("id", "attempt", "error")),
    "embedder": "text",
    "vector": "bytea",
    "expected_embedder": "text",
    "used_prompt_tokens": "bigint",
    "used_completion_tokens": "bigint",
    "cost": "numeric",
    **column_types(Prompt.__table__, Answer._fields),
}
_SET_ANSWER = ", ".join(f"{name} = agreed.{name}" for name in Answer._fields)

# Prompts are locked first, then their users, both in the order of their ids: ARRAY(…) reads all of `locked` before.
# Numbers and names are those of the locked rows. The time is the moment itself, not the transaction's start.
#
# One transaction at a time finishes prompts of a user, by an advisory lock. Without it, two of them block each other if
# the user submits a prompt meanwhile, whose foreign key locks the user's row, too: the one that has locked the newest
# version waits, in its UPDATE, for the version that its snapshot has; the other holds that, and waits for it.
#
# Lines of batches have no deliveries of their own: the batch has one.
#
# A webhook that is deleted meanwhile is locked before its foreign key is checked: then it gets no delivery, where the
# check would fail.
_FINISH = PreparedStatement(
    "finish",
    f"""
    WITH outcome AS (
        SELECT * FROM {unnest(_TYPES)} AS outcome({", ".join(_TYPES)}) ORDER BY id
    ), locked AS (
        SELECT outcome.*, prompt.*
        FROM outcome CROSS JOIN LATERAL (
            SELECT user_id, coalesce(key_id, 0) AS key_id, route FROM prompts
            WHERE id = outcome.id AND attempt = outcome.attempt AND status = ANY(CAST(:statuses AS text[]))
            FOR NO KEY UPDATE
        ) AS prompt
    ), alone AS MATERIALIZED (
        SELECT pg_advisory_xact_lock({advisory_locks.FINISHES}, lock)
        FROM (SELECT DISTINCT hashint8(user_id) AS lock FROM locked ORDER BY lock) AS locks
    ), owner AS (
        SELECT id, username, seq, embedder FROM users
        WHERE (SELECT count(*) FROM alone) > 0 AND id = ANY(ARRAY(SELECT user_id FROM locked))
        ORDER BY id
        FOR NO KEY UPDATE
    ), judged AS (
        SELECT locked.*, owner.username, owner.seq AS newest, owner.embedder AS current_embedder,
            locked.vector IS NULL OR owner.embedder IS NOT DISTINCT FROM locked.embedder
            OR owner.embedder IS NOT DISTINCT FROM locked.expected_embedder AS agrees,
            locked.vector IS NULL AND :change = 'completed' AS lacks_vector
        FROM locked JOIN owner ON owner.id = locked.user_id
    ), agreed AS (
        SELECT *, newest + row_number() OVER (PARTITION BY user_id ORDER BY id) AS seq FROM judged WHERE agrees
    ), raised AS (
        UPDATE users SET seq = reached.seq, embedder = coalesce(reached.embedder, users.embedder),
            vectors_missing = users.vectors_missing OR reached.vectors_missing
        FROM (
            SELECT user_id, max(seq) AS seq, max(embedder) AS embedder, bool_or(lacks_vector) AS vectors_missing
            FROM agreed GROUP BY user_id
        ) AS reached
        WHERE users.id = reached.user_id
    ), finished AS (
        UPDATE prompts
        SET status = :change, seq = agreed.seq, error = agreed.error, {_SET_ANSWER},
            due_at = NULL, not_before = NULL, turn = NULL, completed_at = clock_timestamp(),
            vector_due_at = CASE WHEN agreed.lacks_vector THEN clock_timestamp() END,
            used_prompt_tokens = prompts.used_prompt_tokens + coalesce(agreed.used_prompt_tokens, 0),
            used_completion_tokens = prompts.used_completion_tokens + coalesce(agreed.used_completion_tokens, 0),
            settled_attempt = CASE WHEN cost IS NULL THEN settled_attempt ELSE agreed.attempt END
        FROM agreed
        WHERE prompts.id = agreed.id
        RETURNING prompts.id, agreed.user_id, username, agreed.seq, websocket, request_id, metadata, prompt_text,
            agreed.error, created_at, completed_at, agreed.key_id, agreed.route, agreed.used_prompt_tokens,
            agreed.used_completion_tokens, cost, batch_id
    ), recorded AS (
        {add_to_ledger("finished", at="completed_at", prompts=1)}
    ), published AS (
        INSERT INTO feed (user_id, seq, prompt_id, change, error, at)
        SELECT user_id, seq, id, :change, error, completed_at FROM finished
    ), delivered AS (
        INSERT INTO webhook_deliveries (webhook_id, event, seq, prompt_id)
        SELECT webhooks.id, event, finished.seq, finished.id
        FROM finished JOIN webhooks USING (user_id) CROSS JOIN LATERAL (SELECT 'prompt.' || :change AS event) AS type
        WHERE finished.batch_id IS NULL AND disabled_at IS NULL AND (events IS NULL OR event = ANY(events))
        FOR KEY SHARE OF webhooks
    ), logged AS (
        INSERT INTO vector_log (user_id, seq, embedder, prompt_id, vector)
        SELECT user_id, seq, embedder, id, vector FROM agreed WHERE vector IS NOT NULL
    )
    SELECT id, user_id, NULL AS current_embedder, username, seq, websocket, request_id, route, metadata, prompt_text,
        created_at, completed_at, EXISTS (SELECT FROM routes WHERE concurrency IS NOT NULL) AS is_reduced
    FROM finished
    UNION ALL
    SELECT id, user_id, current_embedder, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM judged WHERE NOT agrees
    ORDER BY id
    """,  # noqa: S608  # nosec B608
    {**{name: f"{type_}[]" for name, type_ in _TYPES.items()}, "change": "text", "statuses": "text[]"},
)


def finish(executor: Executor, outcomes: Sequence[Outcome], change: Change, *, of: Sequence[Status]) -> FinishResult:
    """Finish those of the prompts that are still at their attempt and have one of these statuses.

    From then on the user's searches compare vectors of the outcome's embedder, if the user had no vectors before. A
    prompt whose vector is of another embedder than its user's by now is left as it is: it needs another vector.
    """
    rows = [(*outcome[:-2], *outcome.used, *outcome.answer) for outcome in outcomes]
    parameters = array_parameters(_TYPES, rows)
    by_id = {outcome.id: outcome for outcome in outcomes}
    result, is_reduced = FinishResult([], {}), False
    for row in _FINISH(executor, {"change": change, "statuses": list(of), **parameters}):
        if row.seq is None:
            result.other_embedders[row.id] = row.current_embedder
            continue
        outcome, is_reduced = by_id[row.id], row.is_reduced
        result.finished.append(
            FinishedPrompt(
                user_id=row.user_id,
                username=row.username,
                seq=row.seq,
                change=change,
                prompt_id=row.id,
                attempt=outcome.attempt,
                websocket=row.websocket,
                request_id=row.request_id,
                route=row.route,
                metadata=row.metadata,
                prompt_text=row.prompt_text,
                error=outcome.error,
                created_at=row.created_at,
                at=row.completed_at,
                answer=outcome.answer,
            )
        )
    return result._replace(is_reduced=is_reduced)


def cancel(
    session: Session, locked: Sequence[Row[*tuple[Any, ...]]], *, error: str | None = None
) -> list[FinishedPrompt]:
    """Finish unfinished prompts as cancelled. What their attempts have reserved is kept until those have ended.

    Args:
        locked: The prompts' columns `budgets.RESERVED`, locked in the order of their ids.
    """
    for prompt in locked:
        budgets.keep_reserved(session, prompt)
    outcomes = [Outcome(prompt.id, prompt.attempt, error=error) for prompt in locked]
    return finish(session, outcomes, Change.CANCELLED, of=UNFINISHED).finished if outcomes else []
