"""Idempotency keys: the same key and body from the same user within 24 hours make one prompt."""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import delete, func, text
from sqlalchemy.orm import Session

from shared.db.arrays import array_parameters, column_types, unnest
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
_TYPES = column_types(IdempotencyKey.__table__, (*KeyUse._fields, "prompt_id"))
_KEY_TYPES = {name: _TYPES[name] for name in ("user_id", "key")}
_KNOWN = text(f"""
    SELECT user_id, key, fingerprint, prompt_id
    FROM idempotency_keys JOIN {unnest(_KEY_TYPES)} AS used(user_id, key) USING (user_id, key)
    WHERE created_at > now() - :lifetime
""")  # noqa: S608  # nosec B608
# An expired use of the key is overwritten.
_REMEMBER = text(f"""
    INSERT INTO idempotency_keys ({", ".join(_TYPES)}, created_at)
    SELECT *, now() FROM {unnest(_TYPES)}
    ON CONFLICT (user_id, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, prompt_id = excluded.prompt_id, created_at = excluded.created_at
""")  # noqa: S608  # nosec B608


def fingerprint(body: str) -> bytes:
    """The SHA-256 of a request body."""
    return hashlib.sha256(body.encode()).digest()


def reserve(executor: Executor, uses: Sequence[KeyUse]) -> list[Reservation]:
    """Reserve keys until the transaction ends, unless another transaction, or an earlier use, has them."""
    locked = executor.scalars(_LOCK, {"locks": [_lock_of(use) for use in uses]}).all()
    # Read after locking, to see what the transaction that had the lock before has committed.
    arrays = array_parameters(_KEY_TYPES, [(use.user_id, use.key) for use in uses])
    known = {(row.user_id, row.key): row for row in executor.execute(_KNOWN, {"lifetime": LIFETIME, **arrays})}
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
    executor.execute(_REMEMBER, array_parameters(_TYPES, [(*use, prompt_id) for use, prompt_id in created]))


def _lock_of(use: KeyUse) -> int:
    return int.from_bytes(hashlib.sha256(f"{use.user_id}:{use.key}".encode()).digest()[:8], signed=True)


def purge(session: Session) -> None:
    """Delete keys that have expired."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - LIFETIME))
