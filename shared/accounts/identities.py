"""Identities at an identity provider, by which users sign in.

An identity is the pair of issuer and subject. It is never matched by a name or an e-mail address, which may belong to
another person here.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.accounts import users
from shared.accounts.sign_in_codes import ConfirmedIdentity
from shared.db.models import NO_PASSWORD, LinkedIdentity, User
from shared.errors import (
    AccountRequiredError,
    IdentityNotFoundError,
    IdentityTakenError,
    LastSignInError,
    UsernameTakenError,
)


def find_user(session: Session, identity: ConfirmedIdentity) -> User | None:
    """The user of this identity, locked until the commit. The identity's `last_used_at` is set."""
    # Users are locked before identities, as by what links, unlinks and deletes.
    owner = select(LinkedIdentity.user_id).where(_is(identity)).scalar_subquery()
    one = select(User).where(User.id == owner, User.deleted_at.is_(None)).with_for_update(key_share=True)
    user = session.scalar(one)
    used = update(LinkedIdentity).where(_is(identity)).values(last_used_at=func.now()).returning(LinkedIdentity.user_id)
    return user if user is not None and session.scalar(used) == user.id else None


def create_user(session: Session, identity: ConfirmedIdentity) -> User:
    """Add a user without a password, who signs in by this identity.

    Raises:
        AccountRequiredError: the provider says no name that a user may have.
        UsernameTakenError: another user has the name.
        IdentityTakenError: the identity has a user already.
    """
    if identity.username is None:
        raise AccountRequiredError("Your identity provider says no name that a user may have here; ask the operator.")
    try:
        user = users.create(session, identity.username, NO_PASSWORD)
    except UsernameTakenError as error:
        raise UsernameTakenError(
            f"The username {identity.username} is taken. If that account is yours, log in to it with its password, and "
            "link your identity; otherwise ask the operator of this service."
        ) from error
    if not _insert(session, user.id, identity):  # another sign-in was faster; the next one finds its user
        raise IdentityTakenError
    return user


def link(session: Session, user: User, identity: ConfirmedIdentity) -> LinkedIdentity:
    """Let a user sign in by this identity, too. Nothing changes if they can already.

    Raises:
        IdentityTakenError: the identity is another user's, or the user has another one of this provider.
    """
    if not _insert(session, user.id, identity):
        found = session.scalar(select(LinkedIdentity).where(_is(identity), LinkedIdentity.user_id == user.id))
        if found is None:
            raise IdentityTakenError
        return found
    return session.scalars(select(LinkedIdentity).where(_is(identity))).one()


def list_for(session: Session, user_id: int) -> Sequence[LinkedIdentity]:
    """The identities of a user."""
    return session.scalars(select(LinkedIdentity).filter_by(user_id=user_id).order_by(LinkedIdentity.id)).all()


def unlink(session: Session, user: User, identity_id: int) -> None:
    """Remove an identity of a user.

    Raises:
        IdentityNotFoundError: the user has no such identity.
        LastSignInError: the user could not log in any more.
    """
    own = (LinkedIdentity.id == identity_id, LinkedIdentity.user_id == user.id)
    if session.scalar(delete(LinkedIdentity).where(*own).returning(LinkedIdentity.id)) is None:
        raise IdentityNotFoundError
    if not user.has_password and session.scalar(select(LinkedIdentity.id).filter_by(user_id=user.id).limit(1)) is None:
        raise LastSignInError


def is_owner(session: Session, user_id: int, identity: ConfirmedIdentity) -> bool:
    """Whether this is an identity of the user."""
    return session.scalar(select(LinkedIdentity.id).where(_is(identity), LinkedIdentity.user_id == user_id)) is not None


def _is(identity: ConfirmedIdentity) -> ColumnElement[bool]:
    return (LinkedIdentity.issuer == identity.issuer) & (LinkedIdentity.subject == identity.subject)


def _insert(session: Session, user_id: int, identity: ConfirmedIdentity) -> bool:
    values = {"user_id": user_id, "issuer": identity.issuer, "subject": identity.subject}
    added = upsert(LinkedIdentity).values(values).on_conflict_do_nothing().returning(LinkedIdentity.id)
    return session.scalar(added) is not None
