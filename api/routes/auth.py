"""Users and their tokens."""

from http import HTTPStatus
from typing import Any

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag
from werkzeug.exceptions import Forbidden

from api.auth import tokens
from api.auth.tokens import Pair
from api.http import rate_limits
from api.http.openapi.responses import answer, empty, limited, problem_responses
from api.http.schemas import Credentials, NewUser, RefreshToken, Registration, TokenPair
from api.server.threadpool import offload
from api.services import services
from shared import timestamps
from shared.accounts import users
from shared.errors import InvalidCredentialsError, InvalidTokenError, UsernameTakenError

bp = APIBlueprint(
    "auth",
    __name__,
    abp_tags=[Tag(name="Auth", description="Users, and the tokens that they call with.")],
    abp_responses=problem_responses(400, 413, 415, 500, 503),
)

_PAIR = answer(TokenPair, "The tokens.", "tokens")
_SPENT = "The refresh token was used before or revoked; log in again."


@bp.post(
    "/auth/register/",
    operation_id="register",
    responses={
        201: answer(NewUser, "The user was added.", "user"),
        **problem_responses(403, UsernameTakenError(), limited(rate_limits.REGISTRATIONS_PER_ADDRESS)),
    },
)
def register(body: Registration) -> tuple[Response, int]:
    """Adds a user, where registration is open.

    It is not in production by default; there, an address may register ten users an hour.
    """
    if not services().settings.registration_open:
        raise Forbidden("Registration is off here; ask whoever runs this service for an account.")
    services().limits.registration()
    password_hash = offload(users.hash_password, body.password)
    with services().sessions.begin() as session:
        user = users.create(session, body.username, password_hash)
    shown = {"id": user.id, "username": user.username, "created_at": timestamps.rfc3339(user.created_at)}
    return jsonify(shown), HTTPStatus.CREATED


@bp.post(
    "/login/",
    operation_id="login",
    responses={
        200: _PAIR,
        **problem_responses(InvalidCredentialsError(), limited(rate_limits.FAILED_LOGINS_PER_USERNAME)),
    },
)
def login(body: Credentials) -> dict[str, Any]:
    """Starts a login: an access token for calls, a refresh token for the next pair.

    A wrong password and a user who does not exist get the same answer, in the same time. Ten failures a minute for a
    username, and a hundred from an address, are followed by 429.
    """
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


@bp.post(
    "/auth/refresh/", operation_id="refresh", responses={200: _PAIR, **problem_responses(InvalidTokenError(_SPENT))}
)
def refresh(body: RefreshToken) -> dict[str, Any]:
    """Exchanges a refresh token for a new pair.

    It is good once. One that was used before ends its whole login, because somebody has a copy.
    """
    with services().sessions.begin() as session:
        user_id, pair = tokens.rotate(session, body.refresh)
    if pair is None:
        tokens.end_login(user_id)
        raise InvalidTokenError(_SPENT)
    return _shown(pair)


@bp.post(
    "/auth/logout/",
    operation_id="logout",
    responses={204: empty("The login has ended."), **problem_responses(InvalidTokenError())},
)
def logout(body: RefreshToken) -> tuple[str, int]:
    """Ends a login: none of its tokens is good any more."""
    with services().sessions.begin() as session:
        user_id = tokens.log_out(session, body.refresh)
    tokens.end_login(user_id)
    return "", HTTPStatus.NO_CONTENT


def _shown(pair: Pair) -> dict[str, Any]:
    return {"access": pair.access, "refresh": pair.refresh}
