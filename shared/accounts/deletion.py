"""Deleting an account: at once in every answer, then, in batches, in every table and store.

    delete → commit → announce → purge (`shared/accounts/purge.py`, by a worker, until nothing is left)

`delete` closes the account in one short transaction, however many prompts it has: logging in fails, its logins and
keys are revoked, and its name is free. The remaining rows belong to a user without a name, and no route shows them. The
row of the user is deleted last. It stays for a while, because requests that were authenticated just before may still
refer to it: what they store is purged with the rest.
"""

from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.accounts import audit, users
from shared.accounts.audit import Actor
from shared.db import advisory_locks
from shared.errors import UserNotFoundError
from shared.messaging.partial_text import PartialText
from shared.messaging.queue import Queue

#: How many unfinished prompts are cancelled at once. The purge deletes the others; until then they may be answered, but
#: no route shows the answers.
MAX_CANCELLED = 10_000


class DeletedAccount(NamedTuple):
    """What the announcement of a deleted account needs."""

    user_id: int
    attempts: list[tuple[int, int]]  #: the unfinished prompts and their attempts, whose text may be in Redis


# There is no event about it. A worker that answers one of them notices that its claim is lost, and stops.
_CANCEL = text("""
    UPDATE prompts SET status = 'cancelled', due_at = NULL, not_before = NULL, turn = NULL,
        completed_at = clock_timestamp()
    WHERE id = ANY(ARRAY(
        SELECT id FROM prompts WHERE user_id = :user_id AND status IN ('queued', 'processing')
        ORDER BY id LIMIT :limit FOR NO KEY UPDATE
    ))
    RETURNING id, attempt
""")
# No name has a "#", and no password has this hash. The new name locks the row against foreign keys, too: so a prompt
# that is being stored is stored either before this, or for an account that is deleted.
_CLOSE = text("""
    UPDATE users SET username = '#' || id, password_hash = '!', is_admin = false, is_viewer = false,
        shares_name = false, deleted_at = now()
    WHERE id = :user_id AND deleted_at IS NULL
        AND (CAST(:password_hash AS text) IS NULL OR password_hash = :password_hash)
    RETURNING id
""")
# Logins and keys stay until the purge deletes the user, because other processes ask which ones have ended recently.
_REVOKE = (
    text("""
        UPDATE token_families SET revoked_at = coalesce(revoked_at, now()), address = NULL, user_agent = NULL
        WHERE user_id = :user_id
    """),
    text("""
        DELETE FROM identities WHERE user_id = :user_id
    """),
    text("""
        UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()), name = '', prefix = '' WHERE user_id = :user_id
    """),
    text("""
        UPDATE webhooks SET disabled_at = coalesce(disabled_at, now()), leased_until = NULL WHERE user_id = :user_id
    """),
    text("""
        UPDATE batches SET status = 'cancelled', cancelled_at = now(), due_at = NULL, leased_by = NULL
        WHERE user_id = :user_id AND due_at IS NOT NULL
    """),
)


def delete(session: Session, user_id: int, actor: Actor, *, password_hash: str | None = None) -> DeletedAccount:
    """Delete an account. Call `announce` after the commit.

    Args:
        password_hash: The hash of the password that was verified; None without a password, as for an admin.

    Raises:
        UserNotFoundError: there is no such account, or its password was changed after it was verified.
        InsufficientScopeError: the actor, who is another user, is no admin any more.
    """
    # Locks are taken in the order of `shared/prompts/feed.py`: prompts, finishes, users.
    cancelled = session.execute(_CANCEL, {"user_id": user_id, "limit": MAX_CANCELLED}).all()
    advisory_locks.lock_finishes(session, [user_id])
    if actor.user_id not in (None, user_id):
        users.lock_for_admin(session, user_id, actor.user_id)
    closed = session.execute(_CLOSE, {"user_id": user_id, "password_hash": password_hash}).first()
    if closed is None:
        raise UserNotFoundError
    for statement in _REVOKE:
        session.execute(statement, {"user_id": user_id})
    audit.record(session, actor, "account.deleted", user_id)
    return DeletedAccount(user_id, [(row.id, row.attempt) for row in cancelled if row.attempt])


def announce(
    deleted: DeletedAccount, partial_text: PartialText, queue: Queue, *, end_logins: Callable[[int], None]
) -> None:
    """Have every process drop what it holds of the account, and a worker purge it. Best effort.

    If a message is lost, each process finds the ended logins in the database, and the maintenance requests the purge.

    Args:
        end_logins: Notifies all processes that logins of this user have ended, as `Announcer.login_ended` does.
    """
    end_logins(deleted.user_id)
    partial_text.delete(deleted.attempts)
    queue.request_purge(deleted.user_id)
