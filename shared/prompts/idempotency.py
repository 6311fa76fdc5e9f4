"""Idempotency keys: the same key and body from the same user within 24 hours make one prompt."""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import delete, func, text
from sqlalchemy.orm import Session

from shared.db.engine import Executor
from shared.db.models import IdempotencyKey
from shared.errors import IdempotencyKeyInUseError, IdempotencyKeyReusedError

LIFETIME = timedelta(hours=24)


class KeyUse(NamedTuple):
    """A key that came with a request, and the fingerprint of the request's body."""

    user_id: int
    key: str
    fingerprint: bytes


#: The prompt that a key has created, by id; None if the key is free; or why it cannot be used.
Reservation = int | None | IdempotencyKeyInUseError | IdempotencyKeyReusedError

_LOCK = text("SELECT pg_try_advisory_xact_lock(lock) FROM unnest(CAST(:locks AS bigint[])) AS wanted(lock)")
_KNOWN = text("""
    SELECT user_id, key, fingerprint, prompt_id
    FROM idempotency_keys JOIN unnest(CAST(:user_ids AS bigint[]), CAST(:keys AS text[])) AS used(user_id, key)
    USING (user_id, key)
    WHERE created_at > now() - :lifetime
""")
# An expired use of the key is overwritten.
_REMEMBER = text("""
    INSERT INTO idempotency_keys (user_id, key, fingerprint, prompt_id, created_at)
    SELECT *, now() FROM unnest(
        CAST(:user_ids AS bigint[]), CAST(:keys AS text[]), CAST(:fingerprints AS bytea[]),
        CAST(:prompt_ids AS bigint[])
    )
    ON CONFLICT (user_id, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, prompt_id = excluded.prompt_id, created_at = excluded.created_at
""")


def fingerprint(body: str) -> bytes:
    """The SHA-256 of a request body."""
    return hashlib.sha256(body.encode()).digest()


def reserve(executor: Executor, uses: Sequence[KeyUse]) -> list[Reservation]:
    """Reserve keys until the transaction ends, unless another transaction, or an earlier use, has them."""
    locked = executor.scalars(_LOCK, {"locks": [_lock_of(use) for use in uses]}).all()
    # Read after locking, to see what the transaction that had the lock before has committed.
    arrays = {"user_ids": [use.user_id for use in uses], "keys": [use.key for use in uses], "lifetime": LIFETIME}
    known = {(row.user_id, row.key): row for row in executor.execute(_KNOWN, arrays)}
    taken: set[tuple[int, str]] = set()
    found: list[Reservation] = []
    for use, is_ours in zip(uses, locked, strict=True):
        name = (use.user_id, use.key)
        row = known.get(name)
        if row is not None:
            is_same = row.fingerprint.tobytes() == use.fingerprint
            found.append(row.prompt_id if is_same else IdempotencyKeyReusedError())
        elif not is_ours or name in taken:
            found.append(IdempotencyKeyInUseError())
        else:
            found.append(None)
        taken.add(name)
    return found


def remember(executor: Executor, created: Sequence[tuple[KeyUse, int]]) -> None:
    """Record which prompts the keys have created."""
    arrays = {
        "user_ids": [use.user_id for use, _ in created],
        "keys": [use.key for use, _ in created],
        "fingerprints": [use.fingerprint for use, _ in created],
        "prompt_ids": [prompt_id for _, prompt_id in created],
    }
    executor.execute(_REMEMBER, arrays)


def _lock_of(use: KeyUse) -> int:
    return int.from_bytes(hashlib.sha256(f"{use.user_id}:{use.key}".encode()).digest()[:8], signed=True)


def purge(session: Session) -> None:
    """Delete keys that have expired."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - LIFETIME))
