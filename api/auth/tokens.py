"""Authentication by access tokens and API keys, and the tokens of logins.

Access and refresh tokens are JWTs that belong to a login, which is a family of tokens.
An access token is valid until it expires or its login ends, as with a logout (`api/auth/token_cache.py` says how soon).
A refresh token is single-use: it is exchanged for the next pair. Using a spent one ends the login, because
the token was copied.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from flask import Flask, g, request
from flask_jwt_extended import JWTManager, create_access_token, create_refresh_token, decode_token
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt.exceptions import PyJWTError
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from api.auth import api_keys
from api.auth.key_uses import KeyUses
from api.auth.principal import Principal
from api.auth.token_cache import TokenCache
from api.http.addresses import MAX_UNPARSED_CHARACTERS
from shared.accounts import logins
from shared.accounts.logins import MAX_USER_AGENT_LENGTH, Device
from shared.errors import InvalidTokenError
from shared.messaging.announcements import Announcer
from shared.settings import Settings

_FAMILY_CLAIM = "fam"


@dataclass(frozen=True, slots=True)
class TokenPair:
    """An access token for calls, and a refresh token for the next pair."""

    access: str
    refresh: str


@dataclass(frozen=True, slots=True)
class _Claims:
    """The claims of a token whose signature and times were verified."""

    family: UUID
    token_id: UUID
    user_id: str
    expires_at: float


class Authenticator:
    """Issues tokens, and finds the caller of a request: by an access token, or by an API key."""

    def __init__(
        self, settings: Settings, engine: Engine, cache: TokenCache, key_uses: KeyUses, announcer: Announcer
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._cache = cache
        self._key_uses = key_uses
        self._announcer = announcer

    def init_app(self, app: Flask) -> None:
        app.config.update(
            JWT_SECRET_KEY=self._settings.jwt_secret_key.get_secret_value(),
            JWT_ALGORITHM="HS256",
            JWT_ACCESS_TOKEN_EXPIRES=timedelta(minutes=self._settings.access_token_minutes),
            JWT_REFRESH_TOKEN_EXPIRES=timedelta(days=self._settings.refresh_token_days),
        )
        JWTManager(app)

    def log_in(self, session: Session, user_id: int) -> TokenPair:
        """Start a login of the sender of this request."""
        family, refresh_id = uuid4(), uuid4()
        logins.start(session, user_id, family, refresh_id, self._settings.refresh_token_days, _current_device())
        return _issue(user_id, family, refresh_id)

    def rotate(self, session: Session, refresh: str) -> tuple[int, TokenPair | None]:
        """Exchange a refresh token.

        Returns:
            The user's id, and the next pair. If the token was spent before, the pair is None and the login has ended;
            that must be committed, so it is not an exception.

        Raises:
            InvalidTokenError: it is not a valid refresh token.
        """
        claims = _decode(refresh, "refresh")
        user_id, refresh_id = int(claims.user_id), uuid4()
        days = self._settings.refresh_token_days
        if not logins.rotate(session, claims.family, claims.token_id, refresh_id, days, _current_device()):
            logins.end(session, claims.family)
            return user_id, None
        return user_id, _issue(user_id, claims.family, refresh_id)

    def log_out(self, session: Session, refresh: str) -> int:
        """End the login of a refresh token. Returns the user's id.

        Raises:
            InvalidTokenError: it is not a valid refresh token.
        """
        claims = _decode(refresh, "refresh")
        logins.end(session, claims.family)
        return int(claims.user_id)

    def announce_logout(self, user_id: int) -> None:
        """Notify all API processes, this one at once, that a login or an API key of this user has ended.

        Call it after the commit.
        """
        self._cache.forget({user_id})
        self._announcer.login_ended(user_id)

    def authenticate_token(self, token: str) -> Principal:
        """Return the principal of an access token or an API key.

        Raises:
            InvalidTokenError: it is malformed, expired or revoked, or neither of them.
        """
        principal = self._cache.find(token) or self._verify(token)
        if principal.key is not None:
            self._key_uses.note(principal.key.id)
        return principal

    def authenticate_request(self) -> None:
        """Find the caller before a request is handled. Use it as a blueprint's `before_request`."""
        if request.method != "OPTIONS":  # a browser's preflight carries no token
            g.principal = self.authenticate_token(bearer_token(request.headers.get("Authorization")))

    def _verify(self, token: str) -> Principal:
        version, is_key = self._cache.version, token.startswith(api_keys.PREFIX)
        principal = api_keys.authenticate(self._engine, token) if is_key else self._find_login(token)
        self._cache.remember(token, principal, version)
        return principal

    def _find_login(self, access: str) -> Principal:
        claims = _decode(access, "access")
        with self._engine.connect() as connection:
            user = logins.find_user(connection, claims.family)
        if user is None or str(user.id) != claims.user_id:
            raise InvalidTokenError("The token has been revoked.")
        return Principal(
            user.id, user.username, claims.family, claims.expires_at, user.is_admin, is_viewer=user.is_viewer
        )


def bearer_token(header: str | None) -> str:
    """Return the token of an Authorization header.

    Raises:
        InvalidTokenError: the header is missing or has another form.
    """
    scheme, _, token = (header or "").strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise InvalidTokenError("An access token or an API key is needed: Authorization: Bearer <token>.")
    return token.strip()


def _current_device() -> Device:
    """The device that has sent this request."""
    user_agent = request.headers.get("User-Agent", "").replace("\0", "")[:MAX_USER_AGENT_LENGTH]
    return Device((request.remote_addr or "unknown")[:MAX_UNPARSED_CHARACTERS], user_agent or None)


def _issue(user_id: int, family: UUID, refresh_id: UUID) -> TokenPair:
    identity, claims = str(user_id), {_FAMILY_CLAIM: str(family)}
    return TokenPair(
        access=create_access_token(identity, additional_claims=claims),
        refresh=create_refresh_token(identity, additional_claims=claims | {"jti": str(refresh_id)}),
    )


def _decode(token: str, kind: str) -> _Claims:
    try:
        claims = decode_token(token)
        decoded = _Claims(UUID(claims[_FAMILY_CLAIM]), UUID(claims["jti"]), claims["sub"], float(claims["exp"]))
    except (PyJWTError, JWTExtendedException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidTokenError("The token is malformed or has expired.") from error
    if claims["type"] != kind:
        raise InvalidTokenError(f"This is not {'an' if kind == 'access' else 'a'} {kind} token.")
    return decoded
