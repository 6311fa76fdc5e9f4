"""The audit trail: who did what to whom, when, and from where. It is append-only."""

from typing import Any, NamedTuple

from sqlalchemy import insert
from sqlalchemy.orm import Session

from shared.db.models import AuditEntry


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
