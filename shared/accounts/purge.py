"""The rows of deleted accounts, in every table (see `shared/accounts/deletion.py`). Segments and pgvector's tables are
in `shared/search`.

Rows are deleted in batches, each in a transaction of its own: a purge that is interrupted continues where it stopped.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from sqlalchemy import text

from shared.batches import files
from shared.db.engine import Executor, Sessions

#: How many rows a transaction deletes; of prompts, whose texts are long, fewer.
BATCH_ROWS = 2_000
BATCH_PROMPTS = 500
#: How long the row of a deleted user stays, and with it ended logins and revoked keys: longer than a process
#: caches a token (`api/auth/token_cache.py`), and than a request with that token takes.
USER_KEPT_FOR = timedelta(minutes=5)
#: After this time a purge is requested again, because its message may be lost.
REQUESTED_AGAIN_AFTER = timedelta(minutes=1)

_IS_DELETED = text("SELECT EXISTS (SELECT FROM users WHERE id = :user_id AND deleted_at IS NOT NULL)")
# In random order, so that accounts that cannot be purged now do not block the others.
_FIND_DUE = text("SELECT id FROM users WHERE deleted_at < now() - :age ORDER BY random() LIMIT :limit")
# Each batch begins after the one before: PostgreSQL would otherwise pass over everything that it deleted, in the index.
_FOLLOWING = "(:after IS NULL OR {key} > :after)"
# In the order of all other transactions that lock several prompts.
_DELETE_PROMPTS = text(f"""
    DELETE FROM prompts WHERE id = ANY(ARRAY(
        SELECT id FROM prompts WHERE user_id = :user_id AND {_FOLLOWING.format(key="id")}
        ORDER BY id LIMIT :limit FOR UPDATE
    ))
    RETURNING id, attempt
""")  # noqa: S608  # nosec B608
_DELETE_BATCH = f"""
    WITH batch AS (
        SELECT ctid AS row, {{key}} AS key FROM {{table}} WHERE {{owner}} = :owner AND {_FOLLOWING}
        ORDER BY {{key}} LIMIT :limit
    ), deleted AS (
        DELETE FROM {{table}} WHERE ctid = ANY(ARRAY(SELECT row FROM batch))
    )
    SELECT max(key) FROM batch
"""  # noqa: S608  # nosec B608
# Transactions add rows to these only while they hold a prompt's lock. So these are deleted after the prompts.
_LARGE_TABLES = {"vector_log": "seq", "feed": "seq", "idempotency_keys": "key"}
_SMALL_TABLES = ("batches", "webhooks", "usage", "abandoned_attempts", "login_blocks", "word_index")
_WEBHOOKS = text("SELECT id FROM webhooks WHERE user_id = :user_id")
_FILES = text("SELECT id FROM files WHERE user_id = :user_id ORDER BY id")
# By cascade, this also deletes what was stored since the last batch.
_DELETE_USER = text("DELETE FROM users WHERE id = :user_id AND deleted_at < now() - :kept_for")


def is_deleted(executor: Executor, user_id: int) -> bool:
    """Whether this is a deleted account that is not purged completely."""
    return bool(executor.execute(_IS_DELETED, {"user_id": user_id}).scalar_one())


def find_due(executor: Executor, limit: int) -> Sequence[int]:
    """Deleted accounts that were not purged within REQUESTED_AGAIN_AFTER."""
    return executor.scalars(_FIND_DUE, {"age": REQUESTED_AGAIN_AFTER, "limit": limit}).all()


def delete_prompts(sessions: Sessions, user_id: int) -> Iterator[list[tuple[int, int]]]:
    """Delete the user's prompts. Yields each batch after its commit: the prompts and their attempts."""
    last: int | None = None
    while True:
        with sessions.begin() as session:
            parameters = {"user_id": user_id, "after": last, "limit": BATCH_PROMPTS}
            deleted = session.execute(_DELETE_PROMPTS, parameters).all()
        if not deleted:
            return
        last = max(row.id for row in deleted)
        yield [(row.id, row.attempt) for row in deleted]


def delete_rows(sessions: Sessions, user_id: int) -> Iterator[None]:
    """Delete everything else of the user, except logins and keys. Yields after the commit of each batch."""
    for table, key in _LARGE_TABLES.items():
        yield from _delete_from(sessions, table, "user_id", user_id, key)
    with sessions() as session:
        webhook_ids = session.scalars(_WEBHOOKS, {"user_id": user_id}).all()
    for webhook_id in webhook_ids:
        yield from _delete_from(sessions, "webhook_deliveries", "webhook_id", webhook_id, "id")  # attempts by cascade
    with sessions() as session:
        file_ids = session.scalars(_FILES, {"user_id": user_id}).all()
    for file_id in file_ids:
        with sessions.begin() as session:
            files.delete(session, user_id, file_id)
        yield
    for table in _SMALL_TABLES:
        with sessions.begin() as session:
            session.execute(text(f"DELETE FROM {table} WHERE user_id = :user_id"), {"user_id": user_id})  # noqa: S608  # nosec B608
        yield


def _delete_from(sessions: Sessions, table: str, owner: str, owner_id: int, key: str) -> Iterator[None]:
    statement = text(_DELETE_BATCH.format(table=table, owner=owner, key=key))
    last: int | str | None = None
    while True:
        with sessions.begin() as session:
            last = session.scalar(statement, {"owner": owner_id, "after": last, "limit": BATCH_ROWS})
        if last is None:
            return
        yield


def delete_user(sessions: Sessions, user_id: int) -> bool:
    """Delete the user, with logins and keys, unless the account was deleted a moment ago. Returns whether it did."""
    with sessions.begin() as session:
        result = session.execute(_DELETE_USER, {"user_id": user_id, "kept_for": USER_KEPT_FOR})
        return bool(result.rowcount)  # type: ignore[attr-defined]
