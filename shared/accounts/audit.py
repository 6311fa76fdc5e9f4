"""The audit trail: who did what to whom, when, and from where. It is append-only."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import insert, select
from sqlalchemy.orm import Session, aliased

from shared.db.engine import Executor
from shared.db.models import AuditEntry, User


class Actor(NamedTuple):
    """Who acts: a user, with an API key or a login, from an address; or someone at the command line."""

    user_id: int | None
    key_id: int | None
    address: str
    request_id: str | None


COMMAND_LINE = Actor(None, None, "command line", None)


def record(session: Session, actor: Actor, action: str, user_id: int | None, **details: Any) -> None:
    """Add an entry, in the transaction of the act. `user_id` is the user whose account, key or prompts it concerns.

    `details` are JSON values. They name nothing that a deleted user would want to be forgotten: no names, no texts.
    """
    session.execute(
        insert(AuditEntry).values(
            actor_id=actor.user_id,
            key_id=actor.key_id,
            action=action,
            user_id=user_id,
            details=details,
            address=actor.address,
            request_id=actor.request_id,
        )
    )


def record_all(session: Session, actor: Actor, action: str, counts: Mapping[int, int], **details: Any) -> None:
    """Add an entry for each user, with the number of their prompts that an operation has changed, as `record` does."""
    common = {"actor_id": actor.user_id, "key_id": actor.key_id, "action": action}
    common |= {"address": actor.address, "request_id": actor.request_id}
    rows = [common | {"user_id": user_id, "details": details | {"prompts": count}} for user_id, count in counts.items()]
    if rows:
        session.execute(insert(AuditEntry).values(rows))


class Entry(NamedTuple):
    """An entry of the audit trail. Names are None for users who are deleted, and where there is no user."""

    id: int
    at: datetime
    actor_id: int | None
    actor_name: str | None
    key_id: int | None
    action: str
    user_id: int | None
    username: str | None
    details: dict[str, Any]
    address: str
    request_id: str | None


def list_entries(executor: Executor, *, limit: int, before: int, user_id: int | None = None) -> list[Entry]:
    """Entries with ids below `before`, the newest first; of all users, or of what concerns one."""
    statement = _ENTRIES.where(AuditEntry.user_id == user_id) if user_id is not None else _ENTRIES
    page = statement.where(AuditEntry.id < before).order_by(AuditEntry.id.desc()).limit(limit)
    return [Entry(*row) for row in executor.execute(page)]


_actor, _user = aliased(User), aliased(User)
_ENTRIES = (
    select(
        AuditEntry.id,
        AuditEntry.at,
        AuditEntry.actor_id,
        _actor.username,
        AuditEntry.key_id,
        AuditEntry.action,
        AuditEntry.user_id,
        _user.username,
        AuditEntry.details,
        AuditEntry.address,
        AuditEntry.request_id,
    )
    .outerjoin(_actor, (_actor.id == AuditEntry.actor_id) & _actor.deleted_at.is_(None))
    .outerjoin(_user, (_user.id == AuditEntry.user_id) & _user.deleted_at.is_(None))
)
