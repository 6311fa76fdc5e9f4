"""Deleting an account."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.accounts import audit, logins
from shared.accounts.audit import Actor
from shared.errors import UserNotFoundError

_MARK = text("""
    UPDATE users SET deleted_at = now(), username = '#' || id, password_hash = '', is_admin = false
    WHERE id = :user_id AND deleted_at IS NULL RETURNING id
""")
_REVOKE_KEYS = text("UPDATE api_keys SET revoked_at = now() WHERE user_id = :user_id AND revoked_at IS NULL")


def delete(session: Session, user_id: int, actor: Actor) -> None:
    """Delete an account. Announce that its logins have ended after the commit.

    Raises:
        UserNotFoundError: there is no such user.
    """
    if session.scalar(_MARK, {"user_id": user_id}) is None:
        raise UserNotFoundError
    logins.end_all(session, user_id)
    session.execute(_REVOKE_KEYS, {"user_id": user_id})
    audit.record(session, actor, "account.deleted", user_id)
