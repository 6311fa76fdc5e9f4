"""Access and refresh tokens: JWTs that belong to a family, which is one login.

An access token is valid while it has not expired and its family is alive, so a logout ends it
(`api/auth/token_cache.py` says how soon). A refresh token is single-use: using it gives the next one, and using a spent
one ends the family, because somebody has a copy.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from flask import Flask, g, request
from flask_jwt_extended import JWTManager, create_access_token, create_refresh_token, decode_token
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt.exceptions import PyJWTError
from sqlalchemy.orm import Session

from api.auth.token_cache import Principal
from api.services import services
from shared.accounts import users
from shared.db.models import User
from shared.errors import InvalidTokenError
from shared.settings import Settings

_FAMILY = "fam"


@dataclass(frozen=True, slots=True)
class Pair:
    """What a client gets: an access token for calls, and a refresh token for the next pair."""

    access: str
    refresh: str


@dataclass(frozen=True, slots=True)
class _Token:
    """The claims of a token whose signature and times are right."""

    family: UUID
    id: UUID
    subject: str
    expires_at: float


def init_app(app: Flask, settings: Settings) -> None:
    app.config.update(
        JWT_SECRET_KEY=settings.jwt_secret_key.get_secret_value(),
        JWT_ALGORITHM="HS256",
        JWT_ACCESS_TOKEN_EXPIRES=timedelta(minutes=settings.access_token_minutes),
        JWT_REFRESH_TOKEN_EXPIRES=timedelta(days=settings.refresh_token_days),
    )
    JWTManager(app)


def log_in(session: Session, user: User) -> Pair:
    """Starts a family."""
    family, first = uuid4(), uuid4()
    users.start_family(session, user.id, family, first, services().settings.refresh_token_days)
    return _pair(user.id, family, first)


def rotate(session: Session, refresh: str) -> tuple[int, Pair | None]:
    """Spends a refresh token.

    Returns:
        Whose it is, and the next pair, or None if it was spent before; the family is then revoked. (No exception:
        the revocation must be committed.)

    Raises:
        InvalidTokenError: it is no refresh token of a live family.
    """
    token = _decode(refresh, "refresh")
    family, spent, following = token.family, token.id, uuid4()
    if not users.rotate_family(session, family, spent, following, services().settings.refresh_token_days):
        users.revoke_family(session, family)
        return int(token.subject), None
    return int(token.subject), _pair(int(token.subject), family, following)


def log_out(session: Session, refresh: str) -> int:
    """Ends the family of a refresh token, and returns whose it was.

    Raises:
        InvalidTokenError: it is no refresh token.
    """
    token = _decode(refresh, "refresh")
    users.revoke_family(session, token.family)
    return int(token.subject)


def authenticate_token(access: str) -> Principal:
    """Whose access token this is.

    Raises:
        InvalidTokenError: it is malformed, expired or revoked, or no access token.
    """
    logins = services().logins
    caller = logins.find(access)
    if caller is None:
        moment, token = logins.moment, _decode(access, "access")
        with services().autocommit_engine.connect() as connection:
            user = users.find_by_family(connection, token.family)
        if user is None or str(user[0]) != token.subject:
            raise InvalidTokenError("The token has been revoked.")
        caller = Principal(*user, token.family, token.expires_at)
        logins.remember(access, caller, moment)
    return caller


def end_login(user_id: int) -> None:
    """Tells every API process, this one at once, that a login of this user has ended. Call it after the commit."""
    services().logins.forget({user_id})
    services().announcer.login_ended(user_id)


def bearer(header: str | None) -> str:
    """The token in an Authorization header.

    Raises:
        InvalidTokenError: the header is missing or has another form.
    """
    scheme, _, token = (header or "").strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise InvalidTokenError("An access token is needed: Authorization: Bearer <token>.")
    return token.strip()


def authenticate() -> None:
    """Finds out who calls, before the request is looked at any further."""
    if request.method == "OPTIONS":  # a browser's preflight bears no token
        return
    g.caller = authenticate_token(bearer(request.headers.get("Authorization")))


def current() -> Principal:
    """The caller of this request, whom `authenticate` has found."""
    caller: Principal = g.caller
    return caller


def _pair(user_id: int, family: UUID, refresh_id: UUID) -> Pair:
    identity, claims = str(user_id), {_FAMILY: str(family)}
    return Pair(
        access=create_access_token(identity, additional_claims=claims),
        refresh=create_refresh_token(identity, additional_claims=claims | {"jti": str(refresh_id)}),
    )


def _decode(encoded: str, kind: str) -> _Token:
    try:
        claims = decode_token(encoded)
        token = _Token(UUID(claims[_FAMILY]), UUID(claims["jti"]), claims["sub"], float(claims["exp"]))
    except (PyJWTError, JWTExtendedException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidTokenError("The token is malformed or has expired.") from error
    if claims["type"] != kind:
        raise InvalidTokenError(f"This is no {kind} token.")
    return token
