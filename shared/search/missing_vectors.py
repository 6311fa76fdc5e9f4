"""Completed prompts without a vector: those that were answered while the embedder failed.

`shared/prompts/completion.py` marks such a prompt with `vector_due_at`, in the statement that completes it. The
transaction that stores its vector clears the mark, under the prompt's lock, so a vector is stored exactly once. It
gets the user's next number, not that of the completion: replicas have read beyond that, and sealed segments cover it.
So every index catches up with it as with any new vector.

    due → (claimed …) → stored | postponed | refused … given up

Locks are taken in the order of `shared/prompts/feed.py`: prompts first, then their users, both by id. All times are the
database's.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from shared.db import advisory_locks
from shared.db.engine import Executor
from shared.db.models import Change, FeedEntry, VectorLogEntry
from shared.search.vector_log import LogRow

#: After this number of refusals by a working embedder a text is given up: some 85 minutes after the first.
MAX_REFUSALS = 5
#: The pause after a first refusal; it is four times as long after each further one.
REFUSAL_BACKOFF = timedelta(minutes=1)
#: The `prompt_id` of an entry in the feed that concerns no prompt.
_NO_PROMPT = 0


class MissingVector(NamedTuple):
    """A completed prompt that has no vector yet."""

    prompt_id: int
    user_id: int
    prompt_text: str
    embedder: str | None  #: the name of the one whose vectors the user's searches compare; None without vectors


class BackfilledVector(NamedTuple):
    """A vector for such a prompt: little-endian float32, by an embedder of this name."""

    prompt_id: int
    embedder: str
    vector: bytes
    expected_embedder: str | None  #: the embedder of the user's vectors when this one was made


@dataclass(frozen=True, slots=True)
class Stored:
    """What a call of `store` did."""

    rows: dict[int, list[LogRow]] = field(default_factory=dict)  #: by user, in order, to apply after the commit
    #: Prompts that need another vector, because their users' searches compare another embedder's by now.
    moved: list[int] = field(default_factory=list)


# The rows are locked in order, because another process may be about to store their vectors.
_LOCKED = """
    id = ANY(ARRAY(
        SELECT id FROM prompts WHERE id = ANY(:ids) AND vector_due_at < 'infinity' ORDER BY id FOR NO KEY UPDATE
    ))
"""
_CLAIM_DUE = text("""
    WITH due AS MATERIALIZED (
        SELECT id FROM prompts WHERE vector_due_at <= now() ORDER BY vector_due_at LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE prompts SET vector_due_at = now() + :lease FROM due, users
    WHERE prompts.id = due.id AND users.id = prompts.user_id
    RETURNING prompts.id, user_id, prompt_text, embedder
""")
_IS_DUE = text("SELECT EXISTS (SELECT FROM prompts WHERE vector_due_at <= now())")
# PostgreSQL knows the length of a stored text without reading it.
_OF_USER = text("""
    SELECT prompts.id, user_id, prompt_text, embedder
    FROM (
        SELECT id, sum(size) OVER (ORDER BY id DESC) AS running, row_number() OVER (ORDER BY id DESC) AS number
        FROM (
            SELECT id, octet_length(prompt_text) AS size FROM prompts
            WHERE user_id = :user_id AND vector_due_at IS NOT NULL AND vector_failures = 0
            ORDER BY id DESC
            LIMIT :limit
        ) AS newest
    ) AS sums
    JOIN prompts USING (id)
    JOIN users ON users.id = user_id
    WHERE running <= :max_bytes OR number = 1
""")
_COUNT = text("SELECT count(*) FROM prompts WHERE user_id = :user_id AND vector_due_at IS NOT NULL")
_POSTPONE = text(f"UPDATE prompts SET vector_due_at = now() + :delay WHERE {_LOCKED}")  # noqa: S608  # nosec B608
_REFUSE = text(f"""
    UPDATE prompts
    SET vector_failures = vector_failures + 1,
        vector_due_at = CASE WHEN vector_failures + 1 >= :most THEN 'infinity'
            ELSE now() + :backoff * power(4, vector_failures) END
    WHERE {_LOCKED}
    RETURNING id, vector_due_at = 'infinity' AS is_given_up
""")  # noqa: S608  # nosec B608
_MARK_REFUSED = text("""
    UPDATE prompts SET vector_due_at = now() + :backoff, vector_failures = 1
    WHERE vector_due_at IS NULL AND id = ANY(ARRAY(
        SELECT id FROM prompts WHERE id = ANY(:ids) AND status = 'completed' AND emptied_at IS NULL ORDER BY id
        FOR NO KEY UPDATE
    ))
""")
_RETRY_REFUSED = text("""
    UPDATE prompts SET vector_due_at = now(), vector_failures = 0
    WHERE user_id = :user_id AND vector_due_at IS NOT NULL AND vector_failures > 0
""")
_LOCK_PROMPTS = text("""
    SELECT id, user_id FROM prompts WHERE id = ANY(:ids) AND vector_due_at IS NOT NULL ORDER BY id FOR NO KEY UPDATE
""")
_LOCK_USERS = text("SELECT id, seq, embedder FROM users WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE")
_PRESENT = text("""
    SELECT prompt_id, embedder FROM vector_log
    WHERE user_id = ANY(:user_ids) AND prompt_id = ANY(:prompt_ids) AND vector IS NOT NULL
""")
_CLEAR = text("UPDATE prompts SET vector_due_at = NULL, vector_failures = 0 WHERE id = ANY(:ids)")
_UPDATE_USERS = text("""
    UPDATE users
    SET seq = reached.seq, embedder = reached.embedder,
        vectors_missing = EXISTS (SELECT FROM prompts WHERE user_id = users.id AND vector_due_at IS NOT NULL)
    FROM unnest(CAST(:ids AS bigint[]), CAST(:seqs AS bigint[]), CAST(:embedders AS text[]))
        AS reached(id, seq, embedder)
    WHERE users.id = reached.id
""")


def claim_due(session: Session, limit: int, lease: timedelta) -> list[MissingVector]:
    """Claim prompts whose vectors are due. They are due again after `lease`, unless something else happens to them."""
    return [MissingVector(*row) for row in session.execute(_CLAIM_DUE, {"limit": limit, "lease": lease})]


def is_due(executor: Executor) -> bool:
    """Whether any vector is due."""
    return bool(executor.execute(_IS_DUE).scalar_one())


def for_user(executor: Executor, user_id: int, limit: int, max_bytes: int) -> list[MissingVector]:
    """The user's newest prompts without a vector that no embedder has refused.

    These are at most `limit`, whose texts have at most `max_bytes` of UTF-8 together, but at least one.
    """
    parameters = {"user_id": user_id, "limit": limit, "max_bytes": max_bytes}
    return [MissingVector(*row) for row in executor.execute(_OF_USER, parameters)]


def count(executor: Executor, user_id: int) -> int:
    """How many of the user's completed prompts have no vector, the given-up ones included."""
    return int(executor.execute(_COUNT, {"user_id": user_id}).scalar_one())


def postpone(session: Session, prompt_ids: Sequence[int], delay: timedelta) -> None:
    """Make these prompts due again after `delay`, because the embedder does not work."""
    session.execute(_POSTPONE, {"ids": list(prompt_ids), "delay": delay})


def refuse(session: Session, prompt_ids: Sequence[int]) -> set[int]:
    """Record that a working embedder refused these texts. Returns the prompts that are given up now."""
    parameters = {"ids": list(prompt_ids), "most": MAX_REFUSALS, "backoff": REFUSAL_BACKOFF}
    return {row.id for row in session.execute(_REFUSE, parameters) if row.is_given_up}


def mark_refused(session: Session, prompt_ids: Sequence[int]) -> None:
    """Mark completed prompts as ones whose texts a new embedder has refused once. Then set `users.vectors_missing`."""
    session.execute(_MARK_REFUSED, {"ids": list(prompt_ids), "backoff": REFUSAL_BACKOFF})


def retry_refused(session: Session, user_id: int) -> None:
    """Make the user's refused texts due at once, as if they had never been refused."""
    session.execute(_RETRY_REFUSED, {"user_id": user_id})


def store(session: Session, vectors: Sequence[BackfilledVector]) -> Stored:
    """Store the vectors of those of the prompts that still have none, each with its user's next number.

    A prompt that was deleted, or that has got its vector meanwhile, is left out.
    """
    by_prompt = {each.prompt_id: each for each in vectors}
    locked = session.execute(_LOCK_PROMPTS, {"ids": list(by_prompt)}).all()
    user_ids = sorted({row.user_id for row in locked})
    advisory_locks.lock_finishes(session, user_ids)
    owners = {row.id: row for row in session.execute(_LOCK_USERS, {"ids": user_ids})}
    # A statement of its own, after the locks: it sees what those who held them before have committed.
    wanted = {"user_ids": user_ids, "prompt_ids": [row.id for row in locked]}
    present = {(row.prompt_id, row.embedder) for row in session.execute(_PRESENT, wanted)}
    result, cleared = Stored(), []
    embedders = {user_id: owner.embedder for user_id, owner in owners.items()}
    inserted: list[tuple[int, LogRow, str]] = []
    for prompt_id, user_id in locked:
        late, compared = by_prompt[prompt_id], owners[user_id].embedder
        if compared not in (None, late.embedder, late.expected_embedder):
            result.moved.append(prompt_id)
        elif (prompt_id, late.embedder) not in present:
            rows = result.rows.setdefault(user_id, [])
            rows.append(LogRow(owners[user_id].seq + len(rows) + 1, prompt_id, late.vector))
            inserted.append((user_id, rows[-1], late.embedder))
            embedders[user_id] = late.embedder
            cleared.append(prompt_id)
        elif compared == late.embedder:  # reindexing has added it
            cleared.append(prompt_id)
    session.execute(_CLEAR, {"ids": cleared})
    _insert(session, inserted)
    reached = {user_id: owners[user_id].seq + len(result.rows.get(user_id, ())) for user_id in user_ids}
    _update_users(session, reached, embedders)
    return result


def clear_flag(session: Session, user_id: int) -> None:
    """Set the user's `vectors_missing` by counting. It may have stayed true when a prompt was deleted."""
    # The lock is a statement of its own: the next one then sees all that was committed before.
    for row in session.execute(_LOCK_USERS, {"ids": [user_id]}).all():
        _update_users(session, {user_id: row.seq}, {user_id: row.embedder})


def _insert(session: Session, inserted: Collection[tuple[int, LogRow, str]]) -> None:
    if not inserted:
        return
    entries: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for user_id, (seq, prompt_id, vector), embedder in inserted:
        number = {"user_id": user_id, "seq": seq}
        entries.append(number | {"prompt_id": _NO_PROMPT, "change": Change.EMBEDDED})
        rows.append(number | {"prompt_id": prompt_id, "embedder": embedder, "vector": vector})
    session.execute(insert(FeedEntry).values(at=text("clock_timestamp()")), entries)
    session.execute(insert(VectorLogEntry), rows)


def _update_users(session: Session, seqs: dict[int, int], embedders: dict[int, str | None]) -> None:
    ids = list(seqs)
    parameters = {"ids": ids, "seqs": list(seqs.values()), "embedders": [embedders[user_id] for user_id in ids]}
    session.execute(_UPDATE_USERS, parameters)
