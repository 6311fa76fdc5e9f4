"""Idempotency keys: the same key and body from the same user within 24 hours make one prompt."""

import hashlib
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.errors import IdempotencyKeyInUseError, IdempotencyKeyReusedError
from shared.models import IdempotencyKey

LIFETIME = timedelta(hours=24)


def fingerprint(body: str) -> bytes:
    """What tells two request bodies apart."""
    return hashlib.sha256(body.encode()).digest()


def reserve(session: Session, user_id: int, key: str, body: bytes) -> int | None:
    """Takes the key for the rest of the transaction.

    Returns:
        The prompt that it already made, or None if it is free.

    Raises:
        IdempotencyKeyInUseError: another transaction has it at this moment.
        IdempotencyKeyReusedError: it was used with another body.
    """
    lock = int.from_bytes(hashlib.sha256(f"{user_id}:{key}".encode()).digest()[:8], signed=True)
    if not session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
        raise IdempotencyKeyInUseError
    known = session.scalar(
        select(IdempotencyKey).where(
            IdempotencyKey.user_id == user_id,
            IdempotencyKey.key == key,
            IdempotencyKey.created_at > func.now() - LIFETIME,
        )
    )
    if known is None:
        return None
    if known.fingerprint != body:
        raise IdempotencyKeyReusedError
    return known.prompt_id


def remember(session: Session, user_id: int, key: str, body: bytes, prompt_id: int) -> None:
    """Notes which prompt the key made. An expired use of the key gives way."""
    values = {"fingerprint": body, "prompt_id": prompt_id, "created_at": func.now()}
    session.execute(
        insert(IdempotencyKey)
        .values(user_id=user_id, key=key, **values)
        .on_conflict_do_update(index_elements=["user_id", "key"], set_=values)
    )


def purge(session: Session) -> None:
    """Forgets keys that have expired."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - LIFETIME))
