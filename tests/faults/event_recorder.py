"""Records what really happened: Postgres triggers write down every claim and every ending of a prompt."""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import psycopg2

from shared.providers.factory import make_embedder
from shared.settings import Settings
from tests.faults.load import PushedEvent

_TRIGGERS = """
CREATE TABLE fault_endings (user_id bigint, prompt_id bigint, status text, at timestamptz DEFAULT clock_timestamp());
CREATE INDEX ON fault_endings (user_id, prompt_id);
CREATE FUNCTION note_ending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fault_endings (user_id, prompt_id, status) VALUES (NEW.user_id, NEW.id, NEW.status);
    RETURN NULL;
END $$;
CREATE TRIGGER note_ending AFTER UPDATE ON prompts FOR EACH ROW
    WHEN (NEW.status IN ('completed', 'failed', 'cancelled')
        -- What an attempt has used may be recorded later.
        AND (NEW.status, NEW.attempt, NEW.seq, NEW.completed_at, NEW.response_text, NEW.error)
            IS DISTINCT FROM (OLD.status, OLD.attempt, OLD.seq, OLD.completed_at, OLD.response_text, OLD.error))
    EXECUTE FUNCTION note_ending();

CREATE TABLE fault_claims (prompt_id bigint, attempt bigint, at timestamptz DEFAULT clock_timestamp());
CREATE INDEX ON fault_claims (prompt_id);
CREATE FUNCTION note_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fault_claims (prompt_id, attempt) VALUES (NEW.id, NEW.attempt);
    RETURN NULL;
END $$;
CREATE TRIGGER note_claim AFTER UPDATE ON prompts FOR EACH ROW
    WHEN (NEW.attempt > OLD.attempt) EXECUTE FUNCTION note_claim();

CREATE TABLE fault_requeues (
    prompt_id bigint, attempt bigint, reason text, at timestamptz DEFAULT clock_timestamp()
);
CREATE FUNCTION note_requeue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fault_requeues (prompt_id, attempt, reason) VALUES (NEW.id, NEW.attempt, CASE
        WHEN NEW.attempt_limit > OLD.attempt_limit THEN 'released'
        WHEN NEW.not_before IS NOT NULL THEN 'failed'
        ELSE 'lapsed' END);
    RETURN NULL;
END $$;
CREATE TRIGGER note_requeue AFTER UPDATE ON prompts FOR EACH ROW
    WHEN (OLD.status = 'processing' AND NEW.status = 'queued') EXECUTE FUNCTION note_requeue();
"""

_HAS_COMPLETED_SINCE = """
SELECT EXISTS (
    SELECT FROM fault_endings e JOIN prompts p ON p.id = e.prompt_id
    WHERE p.created_at > %s AND e.at > %s AND e.status = 'completed'
)
"""
_REQUEUES = """
SELECT r.prompt_id, r.attempt, r.reason, extract(epoch FROM c.at - since), extract(epoch FROM r.at - since)
FROM fault_requeues r JOIN fault_claims c USING (prompt_id, attempt), CAST(%s AS timestamptz) AS since
WHERE r.at > since ORDER BY r.at
"""
_RELEASED = """
SELECT count(*), count(*) FILTER (WHERE next.at IS NULL AND p.status = 'queued'),
    coalesce(max(extract(epoch FROM next.at - since)), 0)
FROM CAST(%s AS timestamptz) AS since, fault_requeues r JOIN prompts p ON p.id = r.prompt_id
LEFT JOIN fault_claims next ON next.prompt_id = r.prompt_id AND next.attempt = r.attempt + 1
WHERE r.reason = 'released' AND r.at > since
"""
_CHANGED_SINCE = """
SELECT p.id, p.attempt > was.attempt OR p.due_at IS NULL
FROM prompts p JOIN unnest(%s::bigint[], %s::bigint[]) AS was (id, attempt) USING (id)
WHERE p.attempt > was.attempt OR p.status <> 'processing'
"""

_SEGMENT_DAMAGES = (
    "UPDATE segment_parts SET data = set_bit(data, 99999, 1 - get_bit(data, 99999))",
    "UPDATE segment_parts SET data = substring(data FOR 1000)",
    "DELETE FROM segment_parts",
)


class Requeue(NamedTuple):
    """An attempt after which its prompt was queued again. Times are seconds since the moment that was asked for.

    The reasons hold for prompts that were claimed alone.
    """

    prompt_id: int
    attempt: int
    #: `released` (the attempt does not count), `failed` (it does), or `lapsed` (the lease ended, so it does).
    reason: str
    claimed: float
    ended: float


class Released(NamedTuple):
    """Attempts that were released: how many, and how many of their prompts wait for another claim."""

    count: int
    waiting: int
    #: Seconds until the last of the others was claimed again.
    slowest: float


class EventRecorder:
    """Queries the database, each over a new connection, so that a database fault does not break later queries."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.database_url.get_secret_value()
        self._embedder = make_embedder(settings)

    def install(self) -> None:
        self._run(_TRIGGERS)

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self._run(sql, *parameters) or []

    def now(self) -> datetime:
        now: datetime = self.query("SELECT clock_timestamp()")[0][0]
        return now

    def claimed(self) -> dict[int, int]:
        """Return the attempt of each prompt with a current claim, whether its worker is alive or dead."""
        return dict(self.query("SELECT id, attempt FROM prompts WHERE status = 'processing'"))

    def claims(self, prompt_ids: list[int], since: object) -> list[float]:
        """Return when workers claimed these prompts, in seconds since `since`."""
        sql = "SELECT extract(epoch FROM at - %s) FROM fault_claims WHERE prompt_id = ANY(%s) AND at > %s"
        return [float(row[0]) for row in self.query(sql, since, prompt_ids, since)]

    def requeues(self, since: object) -> list[Requeue]:
        """Return the attempts that ended after `since` with their prompts in the queue again, in order of time."""
        rows = self.query(_REQUEUES, since)
        return [Requeue(*row[:3], float(row[3]), float(row[4])) for row in rows]

    def released(self, since: object) -> Released:
        """Return what became of the attempts that were released after `since`."""
        (row,) = self.query(_RELEASED, since)
        return Released(row[0], row[1], float(row[2]))

    def claim_count(self, since: datetime, until: datetime) -> int:
        """Return how many claims there were in this time."""
        count: int = self.query("SELECT count(*) FROM fault_claims WHERE at BETWEEN %s AND %s", since, until)[0][0]
        return count

    def are_finished(self, prompt_ids: list[int]) -> bool:
        return not self.query("SELECT 1 FROM prompts WHERE id = ANY(%s) AND due_at IS NOT NULL", prompt_ids)

    def limit_attempts(self, prompt_ids: list[int], attempts: int) -> None:
        """Let these prompts fail after fewer attempts than MAX_ATTEMPTS."""
        self._run("UPDATE prompts SET attempt_limit = %s WHERE id = ANY(%s)", attempts, prompt_ids)

    def changed_since(self, claimed: dict[int, int]) -> dict[int, bool]:
        """Return which of these claims (id, attempt) are over: True if the prompt has ended or is claimed again."""
        return dict(self.query(_CHANGED_SINCE, list(claimed), list(claimed.values()))) if claimed else {}

    def is_consuming(self, since: object) -> bool:
        """Return whether a prompt submitted after `since` has been completed."""
        return bool(self.query(_HAS_COMPLETED_SINCE, since, since)[0][0])

    def statuses(self, user_id: int) -> dict[int, str]:
        return dict(self.query("SELECT id, status FROM prompts WHERE user_id = %s", user_id))

    def endings(self, user_ids: Iterable[int]) -> Counter[int]:
        """Return how many times each prompt of these users has ended."""
        rows = self.query(
            "SELECT prompt_id, count(*) FROM fault_endings WHERE user_id = ANY(%s) GROUP BY prompt_id", list(user_ids)
        )
        return Counter(dict(rows))

    def unfinished(self, user_ids: Iterable[int]) -> list[tuple[object, ...]]:
        """Return id, status, attempt, age, seconds until due and back-off of each unfinished prompt of these users."""
        sql = """
            SELECT id, status, attempt, extract(epoch FROM now() - created_at)::int,
                extract(epoch FROM due_at - now())::int, not_before IS NOT NULL
            FROM prompts WHERE user_id = ANY(%s) AND due_at IS NOT NULL
        """
        return self.query(sql, list(user_ids))

    def feed(self, user_id: int) -> list[PushedEvent]:
        """Return every event that the user's sockets must receive: each prompt's ending, once."""
        sql = "SELECT seq, prompt_id, change FROM feed WHERE user_id = %s ORDER BY seq"
        return [PushedEvent(*row) for row in self.query(sql, user_id)]

    def ledger(self, user_id: int) -> tuple[int, int, int]:
        """Return what the ledger has of the user: endings of prompts, tokens of prompts and of answers."""
        sql = """
            SELECT coalesce(sum(prompts), 0)::bigint, coalesce(sum(prompt_tokens), 0)::bigint,
                coalesce(sum(completion_tokens), 0)::bigint
            FROM usage WHERE user_id = %s
        """
        return self.query(sql, user_id)[0]

    def used(self, user_id: int) -> tuple[int, int, int]:
        """Return the same, as the user's prompts and their recorded endings have it."""
        sql = """
            SELECT (SELECT count(*) FROM fault_endings WHERE user_id = %s),
                coalesce(sum(used_prompt_tokens), 0)::bigint, coalesce(sum(used_completion_tokens), 0)::bigint
            FROM prompts WHERE user_id = %s
        """
        return self.query(sql, user_id, user_id)[0]

    def spent(self, user_ids: Iterable[int]) -> dict[int, tuple[int, int]]:
        """Return the tokens that each of these users has used, and those that are reserved at the same moment."""
        sql = """
            SELECT id,
                (SELECT coalesce(sum(prompt_tokens + completion_tokens), 0)::bigint FROM usage
                    WHERE user_id = users.id),
                (SELECT coalesce(sum(reserved_tokens), 0)::bigint FROM prompts
                    WHERE user_id = users.id AND status IN ('queued', 'processing'))
            FROM users WHERE id = ANY(%s)
        """
        return {row[0]: (row[1], row[2]) for row in self.query(sql, list(user_ids))}

    def exact_search(self, user_id: int) -> Callable[[str, int], list[tuple[int, float]]]:
        """Return an exact search over the user's completed prompts, which embeds and compares all of them."""
        rows = self.query("SELECT id, prompt_text FROM prompts WHERE user_id = %s AND status = 'completed'", user_id)
        vectors = self._embedder.embed([row[1] for row in rows])

        def nearest(text: str, limit: int) -> list[tuple[int, float]]:
            distances = ((vectors - self._embedder.embed([text])[0]) ** 2).sum(axis=1)
            order = np.argsort(distances, kind="stable")[:limit]
            return [(rows[i][0], float(distances[i])) for i in order]

        return nearest

    def segments(self, user_id: int) -> set[int]:
        """Return the ids of the user's segments."""
        return {row[0] for row in self.query("SELECT id FROM segments WHERE user_id = %s", user_id)}

    def damage_segments(self, user_id: int, kind: int) -> set[int]:
        """Damage all of the user's segments in one of three ways. Return their ids."""
        ids = list(self.segments(user_id))
        change = _SEGMENT_DAMAGES[kind % len(_SEGMENT_DAMAGES)]
        self._run(f"{change} WHERE segment_id = ANY(%s)", ids)
        return set(ids)

    def answers(self, user_id: int) -> list[tuple[str, str]]:
        """Return prompt and answer of each completed prompt of the user."""
        sql = "SELECT prompt_text, response_text FROM prompts WHERE user_id = %s AND status = 'completed'"
        return self.query(sql, user_id)

    def find(self, texts: Collection[str]) -> dict[str, int]:
        """Return the ids of the prompts with these texts."""
        return dict(self.query("SELECT prompt_text, id FROM prompts WHERE prompt_text = ANY(%s)", list(texts)))

    def retried(self, user_id: int, limit: int) -> list[str]:
        """Return texts of completed prompts, those with the most attempts first."""
        sql = (
            "SELECT prompt_text FROM prompts WHERE user_id = %s AND status = 'completed' ORDER BY attempt DESC LIMIT %s"
        )
        return [row[0] for row in self.query(sql, user_id, limit)]

    def _run(self, sql: str, *parameters: object) -> list[tuple[Any, ...]] | None:
        with contextlib.closing(psycopg2.connect(self._url, connect_timeout=5)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters or None)
                return cursor.fetchall() if cursor.description else None


def differ(found: list[dict[str, Any]], expected: list[tuple[int, float]]) -> bool:
    """Return whether search results differ from the expected ones, up to rounding. Ties may be in any order."""
    scores = [result["similarity_score"] for result in found]
    if len(found) != len(expected) or not np.allclose(scores, [score for _, score in expected], atol=1e-3):
        return True
    farthest = max((score for _, score in expected), default=0.0) - 1e-3
    return not {i for i, score in expected if score < farthest} <= {result["id"] for result in found}
