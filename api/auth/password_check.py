"""Checks the password of a caller who is logged in, before acts that only the owner of an account may do.

A stolen access token must not help to guess the password: wrong ones count as failed logins.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from api.auth.failed_logins import FailedLogins
from api.auth.principal import current_principal
from api.http.rate_limits import client_block
from api.server.threadpool import offload
from shared.accounts import login_blocks, names, users
from shared.db.engine import Sessions
from shared.db.models import User
from shared.errors import InvalidCredentialsError, InvalidTokenError, WrongPasswordError


class PasswordCheck:
    """The callers' accounts, and whether their passwords are right."""

    def __init__(self, sessions: Sessions, failed_logins: FailedLogins) -> None:
        self._sessions = sessions
        self._failed_logins = failed_logins

    def caller(self) -> User:
        """The caller's account. Raises InvalidTokenError if it was deleted."""
        with self._sessions() as session:
            user = session.get(User, current_principal().id)
        if user is None or user.deleted_at is not None:
            raise InvalidTokenError
        return user

    @contextmanager
    def verified(self, password: str, *, field: str) -> Iterator[User]:
        """Run the block with the caller's account, as it was when this password was verified.

        The block raises InvalidCredentialsError if the password was changed since.

        Args:
            field: The password's name in the request.

        Raises:
            WrongPasswordError: the password is wrong.
            RateLimitedError: there were too many wrong ones.
            InvalidTokenError: the account was deleted.
        """
        user, block = self.caller(), client_block()
        if not user.has_password:
            raise WrongPasswordError(field, "This account has no password: sign in again with your identity provider.")
        try:
            with self._failed_logins.attempt(names.fold(user.username), block, lambda: self._is_known(user, block)):
                _verify(user, password)
                yield user
        except InvalidCredentialsError:
            raise WrongPasswordError(field) from None

    def forget(self, user: User) -> None:
        """Forget how often the password of a deleted user was wrong."""
        self._failed_logins.forget(names.fold(user.username), client_block())

    def _is_known(self, user: User, block: str) -> bool:
        with self._sessions() as session:
            return login_blocks.is_known(session, user.username, block)


def _verify(user: User, password: str) -> None:
    if not offload(users.verify_password, user.password_hash, password):
        raise InvalidCredentialsError
