"""The identities by which the caller signs in with an identity provider."""

from http import HTTPStatus
from typing import Any

from flask import Response, jsonify
from flask_openapi3 import Tag

from api.auth.failed_logins import FAILED_LOGINS_PER_USER_AND_BLOCK
from api.auth.password_check import PasswordCheck
from api.auth.permissions import require_login
from api.auth.principal import current_actor, current_principal
from api.auth.tokens import Authenticator
from api.http.oidc_schemas import Identity, IdentityPath, NewIdentity, identity_resource
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import Responses, empty_response, error_responses, json_response, rate_limited
from api.http.requests import limit_body
from shared.accounts import audit, identities, sign_in_codes, users
from shared.db.engine import Sessions
from shared.errors import (
    IdentityNotFoundError,
    IdentityTakenError,
    InvalidCredentialsError,
    InvalidSignInCodeError,
    LastSignInError,
    LoginRequiredError,
    WrongPasswordError,
)

_FOR_LOGINS = error_responses(LoginRequiredError())

LIST: Responses = {200: json_response([Identity], "The identities.", "identities"), **_FOR_LOGINS}
LINK: Responses = {
    201: json_response(Identity, "The identity is linked.", "identity"),
    **error_responses(400, InvalidSignInCodeError(), WrongPasswordError("password"), IdentityTakenError(), 413, 415),
    **error_responses(rate_limited(FAILED_LOGINS_PER_USER_AND_BLOCK)),
    **_FOR_LOGINS,
}
UNLINK: Responses = {
    204: empty_response("The identity is not linked any more."),
    **error_responses(IdentityNotFoundError(), LastSignInError()),
    **_FOR_LOGINS,
}


class IdentityRoutes:
    """Views of the caller's identities. An API key may not use them."""

    def __init__(self, sessions: Sessions, authenticator: Authenticator, password_check: PasswordCheck) -> None:
        self._sessions = sessions
        self._authenticator = authenticator
        self._password_check = password_check

    def blueprint(self) -> Blueprint:
        bp = Blueprint(
            "identities",
            __name__,
            url_prefix="/account/identities",
            abp_tags=[Tag(name="Account", description="The caller's own account.")],
            abp_security=[{"bearer": []}],
            abp_responses=error_responses(400, 401, 500, 503),
        )
        bp.before_request(self._authenticator.authenticate_request)
        bp.before_request(require_login)
        bp.before_request(limit_body)
        bp.get("/", operation_id="listIdentities", responses=LIST)(self.list)
        bp.post("/", operation_id="linkIdentity", responses=LINK)(self.link)
        bp.delete("/<int:identity_id>/", operation_id="unlinkIdentity", responses=UNLINK)(self.unlink)
        return bp

    def list(self) -> Response:
        """List the identities with which the caller signs in."""
        with self._sessions() as session:
            found = identities.list_for(session, current_principal().id)
        return jsonify([identity_resource(each) for each in found])

    def link(self, body: NewIdentity) -> tuple[dict[str, Any], int]:
        """Link the identity of a sign-in to the caller's account, so that the caller can sign in with it, too.

        It takes the code of a sign-in that was not exchanged for tokens, and the account's password. A wrong one counts
        as a failed login, with the same limits.
        """
        with (
            self._password_check.verified(body.password, field="password") as user,
            self._sessions.begin() as session,
        ):
            if not users.lock_password(session, user):
                raise InvalidCredentialsError
            confirmed = sign_in_codes.redeem(session, body.code, body.code_verifier)
            identity = identities.link(session, user, confirmed)
            audit.record(session, current_actor(), "identity.linked", user.id, identity_id=identity.id)
            resource = identity_resource(identity)
        return resource, HTTPStatus.CREATED

    def unlink(self, path: IdentityPath) -> tuple[str, int]:
        """Unlink an identity. Logins that it has started go on; end them if you do not trust the provider."""
        principal = current_principal()
        with self._sessions.begin() as session:
            user = users.lock(session, principal.id)
            identities.unlink(session, user, path.identity_id)
            audit.record(session, current_actor(), "identity.unlinked", user.id, identity_id=path.identity_id)
        return "", HTTPStatus.NO_CONTENT
