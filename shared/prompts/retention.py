"""Emptying old prompts (RETENTION_DAYS): their texts, answers, errors, words and vectors are removed.

Status, times, attempts and tokens stay. A prompt that has not ended is emptied later.

Vectors leave the search indexes as those of deleted prompts do: by a tombstone in the vector log for each. A tombstone
takes the next number of its user, whose entry in the feed is not an event (`Change.EMPTIED`): readers pass over it.

Locks are taken in the order of `shared/prompts/feed.py`: prompts first, then their users, both by id. All times are the
database's.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Row, insert, text
from sqlalchemy.orm import Session

from shared.db import advisory_locks
from shared.db.models import Change, FeedEntry, VectorLogEntry

#: How many prompts are emptied in a transaction, during which the rows of their users are locked.
BATCH = 200
#: The `prompt_id` of an entry in the feed that concerns no prompt.
_NO_PROMPT = 0


class Emptied(NamedTuple):
    """What a call of `empty_batch` did."""

    reached: int  #: the last prompt that it has read
    complete: int  #: all prompts up to this one are empty; `reached`, or less if one has not ended
    more: bool  #: whether there may be others that are old enough
    prompts: int = 0  #: how many it emptied
    unsealed: Sequence[int] = ()  #: users with segments, some of whose vectors were removed


# Ids are in the order of creation, or nearly so: the boundary between old and new may be off by a few prompts.
_SCAN = text("""
    SELECT id, created_at < now() - :retention AS is_old, emptied_at IS NULL AS has_text
    FROM prompts WHERE id > :after ORDER BY id LIMIT :limit
""")
# FOR UPDATE also waits for a reindex that is storing vectors of these prompts.
_LOCK_PROMPTS = text("""
    SELECT id, user_id, created_at FROM prompts
    WHERE id = ANY(:ids) AND completed_at IS NOT NULL AND emptied_at IS NULL ORDER BY id FOR UPDATE
""")
_LOCK_USERS = text("SELECT id, seq FROM users WHERE id = ANY(:user_ids) ORDER BY id FOR NO KEY UPDATE")
_EMPTY = text("""
    UPDATE prompts SET prompt_text = '', response_text = NULL, error = NULL, vector_due_at = NULL, vector_failures = 0,
        request = NULL, request_hash = NULL, metadata = NULL, tool_calls = NULL, api_request = NULL,
        emptied_at = now()
    WHERE id = ANY(:ids)
""")
_EMPTY_FEED = text("""
    UPDATE feed SET error = NULL
    WHERE change = 'failed' AND at >= :oldest AND prompt_id = ANY(:ids) AND error IS NOT NULL
""")
_REMOVE_VECTORS = text("""
    DELETE FROM vector_log USING unnest(CAST(:user_ids AS bigint[]), CAST(:ids AS bigint[])) AS emptied(user_id, id)
    WHERE vector_log.user_id = emptied.user_id AND prompt_id = emptied.id
    RETURNING vector_log.user_id, prompt_id
""")
# Added by `shared/search/words`, under a lock for which `_LOCK_PROMPTS` waits.
_REMOVE_WORDS = text("DELETE FROM prompt_words WHERE prompt_id = ANY(:ids)")
_RAISE = text("""
    UPDATE users SET seq = reached.seq
    FROM unnest(CAST(:user_ids AS bigint[]), CAST(:seqs AS bigint[])) AS reached(id, seq) WHERE users.id = reached.id
""")
_HAVE_SEGMENTS = text("SELECT DISTINCT user_id FROM segments WHERE user_id = ANY(:user_ids)")
# VECTOR_STORE=pgvector has a copy of the vectors, which it would otherwise keep until the user's next search. A process
# that writes vectors locks the state, and may have read the log before this transaction: wait for it.
_HAS_COPIES = text("SELECT to_regclass('pgvector_vectors') IS NOT NULL")
_LOCK_COPIES = text("SELECT FROM pgvector_state WHERE user_id = ANY(:user_ids) ORDER BY user_id FOR UPDATE")
_REMOVE_COPIES = text("DELETE FROM pgvector_vectors WHERE user_id = ANY(:user_ids) AND prompt_id = ANY(:ids)")


def empty_batch(session: Session, retention: timedelta, *, after: int, limit: int = BATCH) -> Emptied:
    """Empty the ended prompts that are older than `retention` among the next `limit` ones, by id."""
    page = session.execute(_SCAN, {"retention": retention, "after": after, "limit": limit}).all()
    wanted = [row.id for row in page if row.is_old and row.has_text]
    locked = session.execute(_LOCK_PROMPTS, {"ids": wanted}).all()
    missed = set(wanted) - {row.id for row in locked} | {row.id for row in page if not row.is_old}
    reached = page[-1].id if page else after
    emptied = Emptied(
        reached=reached,
        complete=min(missed) - 1 if missed else reached,
        more=len(page) == limit and page[-1].is_old,
        prompts=len(locked),
    )
    return emptied._replace(unsealed=_empty(session, locked)) if locked else emptied


def _empty(session: Session, prompts: Sequence[Row[tuple[int, int, datetime]]]) -> Sequence[int]:
    """Empty these prompts, which are locked. Returns the users who have segments with their vectors."""
    ids, owners = [row.id for row in prompts], [row.user_id for row in prompts]
    user_ids = sorted(set(owners))
    advisory_locks.lock_finishes(session, user_ids)
    seqs = {row.id: row.seq for row in session.execute(_LOCK_USERS, {"user_ids": user_ids})}
    session.execute(_EMPTY, {"ids": ids})
    session.execute(_REMOVE_WORDS, {"ids": ids})
    session.execute(_EMPTY_FEED, {"ids": ids, "oldest": min(row.created_at for row in prompts)})
    removed: dict[int, set[int]] = defaultdict(set)
    for user_id, prompt_id in session.execute(_REMOVE_VECTORS, {"user_ids": owners, "ids": ids}):
        removed[user_id].add(prompt_id)
    if session.scalar(_HAS_COPIES):
        session.execute(_LOCK_COPIES, {"user_ids": user_ids})
        session.execute(_REMOVE_COPIES, {"user_ids": user_ids, "ids": ids})
    if not removed:
        return ()
    _add_tombstones(session, removed, seqs)
    return session.scalars(_HAVE_SEGMENTS, {"user_ids": list(removed)}).all()


def _add_tombstones(session: Session, removed: dict[int, set[int]], seqs: dict[int, int]) -> None:
    """Add the tombstones of these prompts, by user, after the users' newest numbers."""
    tombstones = [
        {"user_id": user_id, "seq": seq, "prompt_id": prompt_id}
        for user_id, prompt_ids in removed.items()
        for seq, prompt_id in enumerate(sorted(prompt_ids), start=seqs[user_id] + 1)
    ]
    session.execute(insert(VectorLogEntry), tombstones)
    entries = [each | {"prompt_id": _NO_PROMPT, "change": Change.EMPTIED} for each in tombstones]
    session.execute(insert(FeedEntry).values(at=text("clock_timestamp()")), entries)
    reached = [seqs[user_id] + len(prompt_ids) for user_id, prompt_ids in removed.items()]
    session.execute(_RAISE, {"user_ids": list(removed), "seqs": reached})
