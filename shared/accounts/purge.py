"""The rows of deleted accounts, in every table (see `shared/accounts/deletion.py`). Segments and pgvector's tables are
in `shared/search`.

Rows are deleted in batches, each in a transaction of its own: a purge that is interrupted goes on where it was.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from sqlalchemy import text

from shared.db.engine import Executor, Sessions

#: How many rows a transaction deletes; of prompts, whose texts are long, fewer.
BATCH_ROWS = 2_000
BATCH_PROMPTS = 500
#: How long the row of a deleted user stays, and with it ended logins and revoked keys: longer than a process believes
#: what it knows of a token (`api/auth/token_cache.py`), and than a request with that token takes.
USER_KEPT_FOR = timedelta(minutes=5)
#: After this time a purge is requested again, because its message may be lost.
REQUESTED_AGAIN_AFTER = timedelta(minutes=1)

_IS_DELETED = text("SELECT EXISTS (SELECT FROM users WHERE id = :user_id AND deleted_at IS NOT NULL)")
# In no particular order, so that accounts which cannot be purged now do not hold up the others.
_FIND_DUE = text("SELECT id FROM users WHERE deleted_at < now() - :age ORDER BY random() LIMIT :limit")
# In the order of all other transactions that lock several prompts.
_DELETE_PROMPTS = text("""
    DELETE FROM prompts
    WHERE id = ANY(ARRAY(SELECT id FROM prompts WHERE user_id = :user_id ORDER BY id LIMIT :limit FOR UPDATE))
    RETURNING id, attempt
""")
# Whatever a running transaction adds to these, it adds while it has a prompt's lock. So they come after the prompts.
_OF_USER = "user_id = :user_id"
_OF_WEBHOOK = "webhook_id IN (SELECT id FROM webhooks WHERE user_id = :user_id)"
_TABLES = {
    "vector_log": _OF_USER,
    "feed": _OF_USER,
    "idempotency_keys": _OF_USER,
    "webhook_deliveries": _OF_WEBHOOK,  # and their attempts, by cascade
    "webhooks": _OF_USER,
    "usage": _OF_USER,
    "login_blocks": _OF_USER,
}
_DELETE_ROWS = [
    text(f"DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {condition} LIMIT :limit))")  # noqa: S608  # nosec B608
    for table, condition in _TABLES.items()
]
# What was stored since the last batch goes along, by cascade.
_DELETE_USER = text("DELETE FROM users WHERE id = :user_id AND deleted_at < now() - :kept_for")


def is_deleted(executor: Executor, user_id: int) -> bool:
    """Whether this is a deleted account that is not purged completely."""
    return bool(executor.execute(_IS_DELETED, {"user_id": user_id}).scalar_one())


def find_due(executor: Executor, limit: int) -> Sequence[int]:
    """Deleted accounts whose first purge should have ended by now."""
    return executor.scalars(_FIND_DUE, {"age": REQUESTED_AGAIN_AFTER, "limit": limit}).all()


def delete_prompts(sessions: Sessions, user_id: int) -> Iterator[list[tuple[int, int]]]:
    """Delete the user's prompts. Yields each batch after its commit: the prompts and their attempts."""
    while True:
        with sessions.begin() as session:
            deleted = session.execute(_DELETE_PROMPTS, {"user_id": user_id, "limit": BATCH_PROMPTS}).all()
        if not deleted:
            return
        yield [(row.id, row.attempt) for row in deleted]


def delete_rows(sessions: Sessions, user_id: int) -> Iterator[None]:
    """Delete everything else of the user, but for logins and keys. Yields after the commit of each batch."""
    for statement in _DELETE_ROWS:
        is_done = False
        while not is_done:
            with sessions.begin() as session:
                result = session.execute(statement, {"user_id": user_id, "limit": BATCH_ROWS})
                is_done = result.rowcount == 0  # type: ignore[attr-defined]
            yield


def delete_user(sessions: Sessions, user_id: int) -> bool:
    """Delete the user, with logins and keys, unless the account was deleted a moment ago. Returns whether it did."""
    with sessions.begin() as session:
        result = session.execute(_DELETE_USER, {"user_id": user_id, "kept_for": USER_KEPT_FOR})
        return bool(result.rowcount)  # type: ignore[attr-defined]
