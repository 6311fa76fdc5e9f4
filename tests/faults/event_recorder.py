"""What really happened, from Postgres itself: triggers note every claim and ending, whoever wrote it and how often."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import psycopg2

from shared.providers.factory import make_embedder
from shared.settings import Settings
from tests.faults.load import Heard

_TRIGGERS = """
CREATE TABLE fault_endings (user_id bigint, prompt_id bigint, status text, at timestamptz DEFAULT clock_timestamp());
CREATE INDEX ON fault_endings (user_id, prompt_id);
CREATE FUNCTION note_ending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fault_endings (user_id, prompt_id, status) VALUES (NEW.user_id, NEW.id, NEW.status);
    RETURN NULL;
END $$;
CREATE TRIGGER note_ending AFTER UPDATE ON prompts FOR EACH ROW
    WHEN (NEW.status IN ('completed', 'failed', 'cancelled') AND NEW IS DISTINCT FROM OLD)
    EXECUTE FUNCTION note_ending();

CREATE TABLE fault_claims (prompt_id bigint, at timestamptz DEFAULT clock_timestamp());
CREATE INDEX ON fault_claims (prompt_id);
CREATE FUNCTION note_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fault_claims (prompt_id) VALUES (NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER note_claim AFTER UPDATE ON prompts FOR EACH ROW
    WHEN (NEW.attempt > OLD.attempt) EXECUTE FUNCTION note_claim();
"""

_CONSUMING = """
SELECT EXISTS (
    SELECT FROM fault_endings e JOIN prompts p ON p.id = e.prompt_id
    WHERE p.created_at > %s AND e.at > %s AND e.status = 'completed'
)
"""
_SINCE_HELD = """
SELECT p.id, p.attempt > was.attempt OR p.due_at IS NULL
FROM prompts p JOIN unnest(%s::bigint[], %s::bigint[]) AS was (id, attempt) USING (id)
WHERE p.attempt > was.attempt OR p.status <> 'processing'
"""

_DAMAGES = (
    "UPDATE segment_parts SET data = set_bit(data, 99999, 1 - get_bit(data, 99999))",
    "UPDATE segment_parts SET data = substring(data FOR 1000)",
    "DELETE FROM segment_parts",
)


class Witness:
    """Questions to the database, each over a connection of its own, so that a fault of it breaks none for long."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.database_url.get_secret_value()
        self._embedder = make_embedder(settings)

    def install(self) -> None:
        self._run(_TRIGGERS)

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self._run(sql, *parameters) or []

    def now(self) -> object:
        return self.query("SELECT clock_timestamp()")[0][0]

    def held(self) -> dict[int, int]:
        """The attempt of each prompt that a worker holds, alive or not."""
        return dict(self.query("SELECT id, attempt FROM prompts WHERE status = 'processing'"))

    def claims(self, prompt_ids: list[int], since: object) -> list[float]:
        """When workers have taken these prompts, in seconds since then."""
        sql = "SELECT extract(epoch FROM at - %s) FROM fault_claims WHERE prompt_id = ANY(%s) AND at > %s"
        return [float(row[0]) for row in self.query(sql, since, prompt_ids, since)]

    def have_ended(self, prompt_ids: list[int]) -> bool:
        return not self.query("SELECT 1 FROM prompts WHERE id = ANY(%s) AND due_at IS NOT NULL", prompt_ids)

    def limit_attempts(self, prompt_ids: list[int], attempts: int) -> None:
        """Has these prompts fail sooner than MAX_ATTEMPTS says."""
        self._run("UPDATE prompts SET attempt_limit = %s WHERE id = ANY(%s)", attempts, prompt_ids)

    def since_held(self, held: dict[int, int]) -> dict[int, bool]:
        """Which of these (id, attempt) are held no more; and whether they have ended, or another attempt goes on."""
        return dict(self.query(_SINCE_HELD, list(held), list(held.values()))) if held else {}

    def is_consuming(self, since: object) -> bool:
        """Whether a prompt that was submitted since then has been answered."""
        return bool(self.query(_CONSUMING, since, since)[0][0])

    def statuses(self, user_id: int) -> dict[int, str]:
        return dict(self.query("SELECT id, status FROM prompts WHERE user_id = %s", user_id))

    def endings(self, user_ids: Iterable[int]) -> Counter[int]:
        """How often each prompt of these users has ended."""
        rows = self.query(
            "SELECT prompt_id, count(*) FROM fault_endings WHERE user_id = ANY(%s) GROUP BY prompt_id", list(user_ids)
        )
        return Counter(dict(rows))

    def unfinished(self, user_ids: Iterable[int]) -> list[tuple[object, ...]]:
        """The id, status, attempt, age and time until it is due of each prompt of these users that has not ended."""
        sql = """
            SELECT id, status, attempt, extract(epoch FROM now() - created_at)::int,
                extract(epoch FROM due_at - now())::int, not_before IS NOT NULL
            FROM prompts WHERE user_id = ANY(%s) AND due_at IS NOT NULL
        """
        return self.query(sql, list(user_ids))

    def feed(self, user_id: int) -> list[Heard]:
        """Every ending that the user's sockets are to be told: here each prompt's, once."""
        sql = "SELECT seq, prompt_id, change FROM feed WHERE user_id = %s ORDER BY seq"
        return [Heard(*row) for row in self.query(sql, user_id)]

    def rebuilt(self, user_id: int) -> Callable[[str, int], list[tuple[int, float]]]:
        """What a search must find: all of the user's completed prompts, embedded anew, all of them compared."""
        rows = self.query("SELECT id, prompt_text FROM prompts WHERE user_id = %s AND status = 'completed'", user_id)
        vectors = self._embedder.embed([row[1] for row in rows])

        def nearest(text: str, limit: int) -> list[tuple[int, float]]:
            distances = ((vectors - self._embedder.embed([text])[0]) ** 2).sum(axis=1)
            order = np.argsort(distances, kind="stable")[:limit]
            return [(rows[i][0], float(distances[i])) for i in order]

        return nearest

    def segments(self, user_id: int) -> set[int]:
        """The user's segments."""
        return {row[0] for row in self.query("SELECT id FROM segments WHERE user_id = %s", user_id)}

    def damage_segments(self, user_id: int, kind: int) -> set[int]:
        """Damages all of the user's segments, in one of three ways. Returns which."""
        ids = list(self.segments(user_id))
        change = _DAMAGES[kind % len(_DAMAGES)]
        self._run(f"{change} WHERE segment_id = ANY(%s)", ids)
        return set(ids)

    def retried(self, user_id: int, limit: int) -> list[str]:
        """Texts of completed prompts, first of those that took more than one attempt."""
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
    """Whether search results are other than they must be, up to rounding. Equally near ones may come in any order."""
    scores = [result["similarity_score"] for result in found]
    if len(found) != len(expected) or not np.allclose(scores, [score for _, score in expected], atol=1e-3):
        return True
    farthest = max((score for _, score in expected), default=0.0) - 1e-3
    return not {i for i, score in expected if score < farthest} <= {result["id"] for result in found}
