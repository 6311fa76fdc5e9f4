"""Registration, login, and the exchange and end of tokens."""

from http import HTTPStatus
from typing import Any

from flask import Response, jsonify
from flask_limiter import Limiter
from flask_openapi3 import Tag
from werkzeug.exceptions import Forbidden

from api.auth.failed_logins import FAILED_LOGINS_PER_USER_AND_BLOCK, FailedLogins
from api.auth.tokens import Authenticator, TokenPair
from api.http import account_schemas
from api.http.account_schemas import Credentials, NewUser, RefreshToken, Registration
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import (
    REGISTRATION_CLOSED,
    Responses,
    empty_response,
    error_responses,
    json_response,
    rate_limited,
)
from api.http.rate_limits import REGISTRATIONS_PER_ADDRESS, client_block
from api.http.requests import limit_body
from api.server.threadpool import offload
from shared import timestamps
from shared.accounts import login_blocks, names, users
from shared.db.engine import Sessions
from shared.db.models import User
from shared.errors import InvalidCredentialsError, InvalidTokenError, UsernameTakenError

_SPENT = "The refresh token was used before or revoked; log in again."
_TOKENS = json_response(account_schemas.TokenPair, "The tokens.", "tokens")

REGISTER: Responses = {
    201: json_response(NewUser, "The user was added.", "user"),
    **error_responses(403, UsernameTakenError(), rate_limited(REGISTRATIONS_PER_ADDRESS)),
}
LOGIN: Responses = {
    200: _TOKENS,
    **error_responses(InvalidCredentialsError(), rate_limited(FAILED_LOGINS_PER_USER_AND_BLOCK)),
}
REFRESH: Responses = {200: _TOKENS, **error_responses(InvalidTokenError(_SPENT))}
LOGOUT: Responses = {204: empty_response("The login has ended."), **error_responses(InvalidTokenError())}


class AuthRoutes:
    """Views of users and their tokens."""

    def __init__(
        self,
        sessions: Sessions,
        authenticator: Authenticator,
        failed_logins: FailedLogins,
        registration_limiter: Limiter,
        *,
        registration_open: bool,
    ) -> None:
        self._sessions = sessions
        self._authenticator = authenticator
        self._failed_logins = failed_logins
        self._registration_limiter = registration_limiter
        self._registration_open = registration_open

    def blueprint(self) -> Blueprint:
        bp = Blueprint(
            "auth",
            __name__,
            abp_tags=[Tag(name="Auth", description="Users, and the tokens of their logins.")],
            abp_responses=error_responses(400, 413, 415, 500, 503),
        )
        bp.before_request(limit_body)
        register = self._registration_limiter.limit(REGISTRATIONS_PER_ADDRESS)(self.register)
        bp.post("/auth/register/", operation_id="register", responses=REGISTER)(register)
        bp.post("/login/", operation_id="login", responses=LOGIN)(self.login)
        bp.post("/auth/refresh/", operation_id="refresh", responses=REFRESH)(self.refresh)
        bp.post("/auth/logout/", operation_id="logout", responses=LOGOUT)(self.logout)
        return bp

    def register(self, body: Registration) -> tuple[Response, int]:
        """Add a user, if registration is open.

        In production it is closed by default; if it is open there, an address may register ten users an hour, together
        with its neighbours (IPv4 /24, IPv6 /64).
        """
        if not self._registration_open:
            raise Forbidden(REGISTRATION_CLOSED)
        password_hash = offload(users.hash_password, body.password)
        with self._sessions.begin() as session:
            user = users.create(session, body.username, password_hash)
        created_at = timestamps.rfc3339(user.created_at)
        return jsonify({"id": user.id, "username": user.username, "created_at": created_at}), HTTPStatus.CREATED

    def login(self, body: Credentials) -> dict[str, Any]:
        """Start a login: an access token for calls, a refresh token for the next pair.

        A wrong password and an unknown user get the same response, in the same time. The response is 429 after ten
        failures a minute for a username from an address, after a hundred a minute from an address, and after a thousand
        an hour for a username. Neighbouring addresses (IPv4 /24, IPv6 /64) count as one. From addresses where the user
        has logged in before, the right password is accepted in spite of these limits, with some delay.
        """
        block = client_block()
        folded = names.fold(body.username)
        with self._failed_logins.attempt(folded, block, lambda: self._is_known(body.username, block)):
            # The password may be changed between its check and the login. Then it is checked again, once.
            pair = self._log_in(body, block) or self._log_in(body, block)
            if pair is None:
                raise InvalidCredentialsError
        return _token_pair(pair)

    def refresh(self, body: RefreshToken) -> dict[str, Any]:
        """Exchange a refresh token for a new pair.

        It is single-use. Using it again ends its login, because it was copied.
        """
        with self._sessions.begin() as session:
            user_id, pair = self._authenticator.rotate(session, body.refresh)
        if pair is None:
            self._authenticator.announce_logout(user_id)
            raise InvalidTokenError(_SPENT)
        return _token_pair(pair)

    def logout(self, body: RefreshToken) -> tuple[str, int]:
        """End a login. All of its tokens become invalid."""
        with self._sessions.begin() as session:
            user_id = self._authenticator.log_out(session, body.refresh)
        self._authenticator.announce_logout(user_id)
        return "", HTTPStatus.NO_CONTENT

    def _log_in(self, body: Credentials, block: str) -> TokenPair | None:
        """Check the password, and start a login. Returns None if the password was changed in between."""
        user = self._check_password(body.username, body.password)
        with self._sessions.begin() as session:
            if not users.lock_password(session, user):
                return None
            login_blocks.remember(session, user.id, block)
            return self._authenticator.log_in(session, user.id)

    def _is_known(self, username: str, block: str) -> bool:
        with self._sessions() as session:
            return login_blocks.is_known(session, username, block)

    def _check_password(self, username: str, password: str) -> User:
        """Verify the same number of hashes, whether or not the user exists and has a password: all take as long."""
        with self._sessions() as session:
            user = users.find(session, username)
        has_password = user is not None and user.has_password
        password_hash = user.password_hash if user is not None and has_password else users.NO_USER_HASH
        matching = offload(users.matching_form, password_hash, password)
        if matching is None or user is None or not has_password:
            raise InvalidCredentialsError
        normalised = names.password_forms(password)[0]
        if matching != normalised:
            self._normalise_password(user, normalised)
        return user

    def _normalise_password(self, user: User, normalised: str) -> None:
        """Replace a hash of the release before passwords were normalised, so that all ways to type it match."""
        password_hash = offload(users.hash_password, normalised)
        with self._sessions.begin() as session:
            users.replace_hash(session, user, password_hash)
        user.password_hash = password_hash


def _token_pair(pair: TokenPair) -> dict[str, Any]:
    return {"access": pair.access, "refresh": pair.refresh}
