"""A sign-in, from the provider's answer to the tokens of a login."""

import time
from collections.abc import Mapping
from typing import Any

from flask import request
from sqlalchemy.orm import Session

from api.auth.oidc.claims import ClaimRules
from api.auth.oidc.errors import InvalidIdTokenError, NotPermittedError
from api.auth.oidc.id_token import CLOCK_SKEW_SECONDS
from api.auth.oidc.pending import MAX_AGE_SECONDS, PendingSignIn
from api.auth.oidc.provider import Exchange, IdentityProvider
from api.auth.tokens import Authenticator, TokenPair
from api.http.rate_limits import client_block
from api.http.requests import request_id
from shared.accounts import audit, identities, login_blocks, sign_in_codes, users
from shared.accounts.audit import Actor
from shared.accounts.sign_in_codes import ConfirmedIdentity, challenge_of
from shared.db.engine import Sessions
from shared.db.models import User
from shared.errors import AccountRequiredError, UsernameTakenError
from shared.settings import Settings


class SignIns:
    """Signs users in with the identity provider of the settings."""

    def __init__(
        self, settings: Settings, sessions: Sessions, authenticator: Authenticator, provider: IdentityProvider
    ) -> None:
        self._sessions = sessions
        self._authenticator = authenticator
        self._provider = provider
        self._rules = ClaimRules(settings)
        self._creates_accounts = settings.oidc_creates_accounts

    def authorization_url(self, pending: PendingSignIn) -> str:
        """Where the user's browser signs in.

        Raises:
            ProviderUnavailableError: the provider's configuration cannot be read.
        """
        return self._provider.authorization_url(
            state=pending.state,
            nonce=pending.nonce,
            challenge=challenge_of(pending.verifier),
            reauthenticate=pending.reauthenticate,
        )

    def finish(self, pending: PendingSignIn, code: str, issuer: str | None) -> str:
        """Exchange the provider's code for a code of this service, for the client that started the sign-in.

        Args:
            issuer: Who the provider says it is (RFC 9207).

        Raises:
            SignInError: the provider does not confirm an identity, or this one may not sign in.
        """
        expected = self._provider.issuer if self._provider.configuration.names_issuer else issuer
        if issuer not in (None, self._provider.issuer) or issuer != expected:
            raise InvalidIdTokenError("The answer is from another identity provider (iss).")
        claims = self._provider.redeem(Exchange(code, pending.verifier, pending.nonce), needed=self._rules.needed)
        if pending.reauthenticate:
            _check_authentication(claims)
        identity = self._rules.apply(claims, reauthenticated=pending.reauthenticate)
        with self._sessions.begin() as session:
            return sign_in_codes.create(session, identity, pending.challenge)

    def redeem(self, code: str, verifier: str) -> tuple[str, TokenPair]:
        """Exchange a code of this service for the username and the tokens of a new login.

        Raises:
            InvalidSignInCodeError: the code is not valid.
            AccountRequiredError: the user has no account, and none may be created.
            UsernameTakenError: another user has the name.
        """
        with self._sessions.begin() as session:
            identity = sign_in_codes.redeem(session, code, verifier)
            user = self._find_or_create(session, identity)
            has_changed = _apply_admin(session, user, identity)
            login_blocks.remember(session, user.id, client_block())
            username, user_id = user.username, user.id
            pair = self._authenticator.log_in(session, user_id)
        if has_changed:
            self._authenticator.announce_logout(user_id)
        return username, pair

    def _find_or_create(self, session: Session, identity: ConfirmedIdentity) -> User:
        user = identities.find_user(session, identity)
        if user is not None:
            return user
        if not self._creates_accounts:
            raise AccountRequiredError
        try:
            user = identities.create_user(session, identity)
        except UsernameTakenError:
            # Perhaps by another first sign-in of the same identity, which has just been committed.
            if (user := identities.find_user(session, identity)) is None:
                raise
            return user
        audit.record(session, _actor(user), "user.created", user.id, by="identity provider")
        return user


def _apply_admin(session: Session, user: User, identity: ConfirmedIdentity) -> bool:
    """Make the user an admin or not, as the provider's groups say. Returns whether that changed anything."""
    acts = users.set_roles(user, is_admin=identity.is_admin)
    for act in acts:
        audit.record(session, _actor(user), act, user.id, by="identity provider")
    return bool(acts)


def _actor(user: User) -> Actor:
    return Actor(user.id, None, request.remote_addr or "unknown", request_id())


def _check_authentication(claims: Mapping[str, Any]) -> None:
    """Refuse an old authentication, if the provider says when it was: it has ignored `prompt=login`."""
    at = claims.get("auth_time", time.time())
    if not isinstance(at, int | float) or at < time.time() - MAX_AGE_SECONDS - CLOCK_SKEW_SECONDS:
        raise NotPermittedError("The identity provider has not asked the user to authenticate again.")
