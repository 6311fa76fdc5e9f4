"""Users and their tokens."""

from http import HTTPStatus
from typing import Any

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag
from werkzeug.exceptions import Forbidden

from api import tokens
from api.offload import offload
from api.schemas import Credentials, NewUser, RefreshToken, Registration, TokenPair, problems
from api.services import services
from api.tokens import Pair
from shared import timestamps, users
from shared.errors import InvalidCredentialsError, InvalidTokenError

bp = APIBlueprint(
    "auth",
    __name__,
    abp_tags=[Tag(name="Auth")],
    abp_responses=problems(400, 413, 415, 429, 500, 503),
)


@bp.post("/auth/register/", responses={201: NewUser, **problems(403, 409)})
def register(body: Registration) -> tuple[Response, int]:
    """Adds a user, where registration is open."""
    if not services().settings.registration_open:
        raise Forbidden("Registration is off here; ask whoever runs this service for an account.")
    services().limits.registration()
    password_hash = offload(users.hash_password, body.password)
    with services().sessions.begin() as session:
        user = users.create(session, body.username, password_hash)
    shown = {"id": user.id, "username": user.username, "created_at": timestamps.rfc3339(user.created_at)}
    return jsonify(shown), HTTPStatus.CREATED


@bp.post("/login/", responses={200: TokenPair, **problems(401)})
def login(body: Credentials) -> dict[str, Any]:
    """Starts a login: an access token for calls, a refresh token for the next pair."""
    with services().limits.login(body.username):
        with services().sessions() as session:
            user = users.find(session, body.username)
        # Whether the user exists or not, one hash is verified: the answer takes as long.
        password_hash = users.NO_USER_HASH if user is None else user.password_hash
        if not offload(users.verify_password, password_hash, body.password) or user is None:
            raise InvalidCredentialsError
        with services().sessions.begin() as session:
            if not users.still_has_password(session, user):
                raise InvalidCredentialsError
            return _shown(tokens.log_in(session, user))


@bp.post("/auth/refresh/", responses={200: TokenPair, **problems(401)})
def refresh(body: RefreshToken) -> dict[str, Any]:
    """Exchanges a refresh token for a new pair. One that was used before ends its whole login."""
    with services().sessions.begin() as session:
        user_id, pair = tokens.rotate(session, body.refresh)
    if pair is None:
        tokens.end_login(user_id)
        raise InvalidTokenError("The refresh token was used before or revoked; log in again.")
    return _shown(pair)


@bp.post("/auth/logout/", responses={204: None, **problems(401)})
def logout(body: RefreshToken) -> tuple[str, int]:
    """Ends a login: none of its tokens is good any more."""
    with services().sessions.begin() as session:
        user_id = tokens.log_out(session, body.refresh)
    tokens.end_login(user_id)
    return "", HTTPStatus.NO_CONTENT


def _shown(pair: Pair) -> dict[str, Any]:
    return {"access": pair.access, "refresh": pair.refresh}
