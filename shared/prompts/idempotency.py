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
    """A key that came with a request, and what tells the request's body apart."""

    user_id: int
    key: str
    fingerprint: bytes


#: What a key has made already: a prompt's id, or None if it is free; or why it cannot be used.
Reservation = int | None | IdempotencyKeyInUseError | IdempotencyKeyReusedError

_LOCK = text("SELECT pg_try_advisory_xact_lock(lock) FROM unnest(CAST(:locks AS bigint[])) AS wanted(lock)")
_KNOWN = text("""
    SELECT user_id, key, fingerprint, prompt_id
    FROM idempotency_keys JOIN unnest(CAST(:user_ids AS bigint[]), CAST(:keys AS text[])) AS used(user_id, key)
    USING (user_id, key)
    WHERE created_at > now() - :lifetime
""")
# An expired use of the key gives way.
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
    """What tells two request bodies apart."""
    return hashlib.sha256(body.encode()).digest()


def reserve(executor: Executor, uses: Sequence[KeyUse]) -> list[Reservation]:
    """Takes keys for the rest of the transaction, but none that another one has, nor one of these a second time."""
    locked = executor.scalars(_LOCK, {"locks": [_lock_of(use) for use in uses]}).all()
    # Only now, so that what a transaction has committed which had the lock before us is seen.
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


def remember(executor: Executor, made: Sequence[tuple[KeyUse, int]]) -> None:
    """Notes which prompts the keys have made."""
    arrays = {
        "user_ids": [use.user_id for use, _ in made],
        "keys": [use.key for use, _ in made],
        "fingerprints": [use.fingerprint for use, _ in made],
        "prompt_ids": [prompt_id for _, prompt_id in made],
    }
    executor.execute(_REMEMBER, arrays)


def _lock_of(use: KeyUse) -> int:
    return int.from_bytes(hashlib.sha256(f"{use.user_id}:{use.key}".encode()).digest()[:8], signed=True)


def purge(session: Session) -> None:
    """Forgets keys that have expired."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - LIFETIME))
