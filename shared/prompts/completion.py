"""Ending prompts: the answer, the next number of the user's feed and its entry, and the vector, all or nothing.

One statement does it, for one prompt or many, so a lone prompt takes one round trip and needs no transaction around it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import text

from shared.db.engine import Executor
from shared.db.models import Change, Status
from shared.prompts.feed import FinishedPrompt


class Outcome(NamedTuple):
    """What an attempt at a prompt ends with."""

    id: int  #: the prompt's
    attempt: int
    response_text: str | None = None
    generator: str | None = None  #: its name
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_from: int | None = None  #: the prompt whose answer was taken
    error: str | None = None
    embedder: str | None = None  #: whose `vector` it is: little-endian float32
    vector: bytes | None = None
    expected_embedder: str | None = None  #: by whom the user's vectors were when this one was made


class FinishResult(NamedTuple):
    """`endings` is what to announce after the commit, in the order of the prompts' ids.

    `other_embedders` tells, by prompt, whose vectors their users' searches have come to compare; these did not end.
    """

    endings: list[FinishedPrompt]
    other_embedders: dict[int, str | None]


# First the prompts are locked, then their users, both in the order of their ids: ARRAY(…) reads all of `held` before.
# Numbers and names are those of the locked rows. The time is the moment itself, not the transaction's start.
_END = text("""
    WITH outcome AS (
        SELECT * FROM unnest(
            CAST(:id AS bigint[]), CAST(:attempt AS bigint[]), CAST(:response_text AS text[]),
            CAST(:generator AS text[]), CAST(:model AS text[]), CAST(:prompt_tokens AS bigint[]),
            CAST(:completion_tokens AS bigint[]), CAST(:cached_from AS bigint[]), CAST(:error AS text[]),
            CAST(:embedder AS text[]), CAST(:vector AS bytea[]), CAST(:expected_embedder AS text[])
        ) AS outcome(
            id, attempt, response_text, generator, model, prompt_tokens, completion_tokens, cached_from, error,
            embedder, vector, expected_embedder
        )
    ), held AS (
        SELECT outcome.*, prompts.user_id
        FROM outcome JOIN prompts USING (id, attempt)
        WHERE prompts.status = ANY(CAST(:statuses AS text[]))
        ORDER BY prompts.id
        FOR NO KEY UPDATE OF prompts
    ), owner AS (
        SELECT id, username, seq, embedder FROM users
        WHERE id = ANY(ARRAY(SELECT user_id FROM held))
        ORDER BY id
        FOR NO KEY UPDATE
    ), judged AS (
        SELECT held.*, owner.username, owner.seq AS newest, owner.embedder AS follows,
            held.vector IS NULL OR owner.embedder IS NOT DISTINCT FROM held.embedder
            OR owner.embedder IS NOT DISTINCT FROM held.expected_embedder AS agrees
        FROM held JOIN owner ON owner.id = held.user_id
    ), agreed AS (
        SELECT *, newest + row_number() OVER (PARTITION BY user_id ORDER BY id) AS seq FROM judged WHERE agrees
    ), raised AS (
        UPDATE users SET seq = reached.seq, embedder = coalesce(reached.embedder, users.embedder)
        FROM (SELECT user_id, max(seq) AS seq, max(embedder) AS embedder FROM agreed GROUP BY user_id) AS reached
        WHERE users.id = reached.user_id
    ), ended AS (
        UPDATE prompts
        SET status = :change, seq = agreed.seq, response_text = agreed.response_text, generator = agreed.generator,
            model = agreed.model, prompt_tokens = agreed.prompt_tokens, completion_tokens = agreed.completion_tokens,
            cached_from = agreed.cached_from, error = agreed.error,
            due_at = NULL, not_before = NULL, completed_at = clock_timestamp()
        FROM agreed
        WHERE prompts.id = agreed.id
        RETURNING prompts.id, agreed.user_id, username, agreed.seq, websocket, request_id, prompt_text, agreed.error,
            created_at, completed_at
    ), told AS (
        INSERT INTO feed (user_id, seq, prompt_id, change, error, at)
        SELECT user_id, seq, id, :change, error, completed_at FROM ended
    ), logged AS (
        INSERT INTO vector_log (user_id, seq, embedder, prompt_id, vector)
        SELECT user_id, seq, embedder, id, vector FROM agreed WHERE vector IS NOT NULL
    )
    SELECT id, user_id, NULL AS follows, username, seq, websocket, request_id, prompt_text, created_at, completed_at
    FROM ended
    UNION ALL
    SELECT id, user_id, follows, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM judged WHERE NOT agrees
    ORDER BY id
""")


def end(executor: Executor, outcomes: Sequence[Outcome], change: Change, *, of: Sequence[Status]) -> FinishResult:
    """Ends those of the prompts that are still at their attempt and of these statuses.

    A user's searches compare the vector's embedder from then on, if they did not before.
    """
    arrays = dict(zip(Outcome._fields, map(list, zip(*outcomes, strict=True)), strict=True))
    by_id = {outcome.id: outcome for outcome in outcomes}
    ended = FinishResult([], {})
    for row in executor.execute(_END, {"change": change, "statuses": list(of), **arrays}):
        if row.seq is None:
            ended.other_embedders[row.id] = row.follows
            continue
        outcome = by_id[row.id]
        ended.endings.append(
            FinishedPrompt(
                user_id=row.user_id,
                username=row.username,
                seq=row.seq,
                change=change,
                prompt_id=row.id,
                attempt=outcome.attempt,
                websocket=row.websocket,
                request_id=row.request_id,
                prompt_text=row.prompt_text,
                response_text=outcome.response_text,
                model=outcome.model,
                prompt_tokens=outcome.prompt_tokens,
                completion_tokens=outcome.completion_tokens,
                cached_from=outcome.cached_from,
                error=outcome.error,
                created_at=row.created_at,
                at=row.completed_at,
            )
        )
    return ended
