"""Signing in with an identity provider (OpenID Connect).

    client → GET /auth/oidc/login/ → provider → GET /auth/oidc/callback/ → client → POST /auth/oidc/token/

The two GETs are for the user's browser: they redirect, also after an error, which the page explains.
"""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import structlog
from flask import redirect, request
from flask_openapi3 import Tag
from werkzeug.wrappers import Response

from api.auth.oidc.errors import RefusedByProviderError, SignInError
from api.auth.oidc.pending import PendingSignIn, PendingSignIns
from api.http import oidc_schemas
from api.http.oidc_schemas import CallbackQuery, SignInCode, SignInMethod, SignInQuery
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import Responses, empty_response, error_responses, json_response, rate_limited
from api.http.rate_limits import SIGN_IN_REQUESTS_PER_BLOCK, AddressLimiter
from api.http.requests import limit_body
from shared.errors import (
    AccountRequiredError,
    IdentityTakenError,
    InvalidSignInCodeError,
    SignInOffError,
    UsernameTakenError,
)
from shared.settings import Settings

if TYPE_CHECKING:
    from api.auth.oidc.sign_in import SignIns

_LIMITED = rate_limited(SIGN_IN_REQUESTS_PER_BLOCK)
_REDIRECT: Responses = {
    303: empty_response("Where the user's browser goes next, in `Location`."),
    **error_responses(400, SignInOffError(), _LIMITED),
}
METHOD: Responses = {200: json_response(SignInMethod, "The identity provider.", "sign-in method", "no sign-in method")}
TOKEN: Responses = {
    200: json_response(oidc_schemas.SignIn, "The tokens.", "sign-in"),
    **error_responses(400, InvalidSignInCodeError(), AccountRequiredError(), SignInOffError(), UsernameTakenError()),
    **error_responses(IdentityTakenError(), _LIMITED, 413, 415),
}

log = structlog.get_logger(__name__)


class OidcRoutes:
    """Views of sign-ins with the identity provider.

    Args:
        sign_ins: None if there is no identity provider.
    """

    def __init__(self, settings: Settings, sign_ins: "SignIns | None", limiter: AddressLimiter) -> None:
        self._name = settings.oidc_name if sign_ins else None
        self._page = f"{settings.public_url}/"
        self._sign_ins = sign_ins
        self._limiter = limiter
        secret = settings.jwt_secret_key.get_secret_value()
        self._pending = PendingSignIns(secret, is_secure=settings.public_url.startswith("https://"))

    def blueprint(self) -> Blueprint:
        bp = Blueprint(
            "oidc",
            __name__,
            url_prefix="/auth/oidc",
            abp_tags=[Tag(name="Auth", description="Users, and the tokens of their logins.")],
            abp_responses=error_responses(500, 503),
        )
        bp.before_request(limit_body)
        bp.get("/", operation_id="getSignInMethod", responses=METHOD)(self.method)
        bp.get("/login/", operation_id="startSignIn", responses=_REDIRECT)(self.start)
        bp.get("/callback/", operation_id="finishSignIn", responses=_REDIRECT)(self.callback)
        bp.post("/token/", operation_id="redeemSignIn", responses=TOKEN)(self.token)
        return bp

    def method(self) -> dict[str, Any]:
        """Get the identity provider with which people may sign in here, in addition to passwords."""
        return {"name": self._name}

    def start(self, query: SignInQuery) -> Response:
        """Redirect the user's browser to the identity provider.

        When the user has signed in there, the browser comes back with a code: to the page, as
        `PUBLIC_URL/#sign-in=CODE`, or to `http://127.0.0.1:PORT/?code=CODE&state=CHALLENGE`, with the challenge of this
        request. Exchange it at `/auth/oidc/token/`. If the sign-in fails, there is `sign-in-error` or `error` instead.
        """
        sign_ins = self._permit()
        reauthenticate = query.reauthenticate or query.port is not None  # so that no link signs a program in
        pending = PendingSignIn.start(query.code_challenge, query.port, reauthenticate=reauthenticate)
        try:
            url = sign_ins.authorization_url(pending)
        except SignInError as error:
            return self._fail(error, pending)
        response = redirect(url, HTTPStatus.SEE_OTHER)
        self._pending.store(response, pending)
        return response

    def callback(self, query: CallbackQuery) -> Response:
        """Take the identity provider's answer, and send the browser back to the client that started the sign-in."""
        sign_ins = self._permit()
        try:
            pending = self._pending.load(request.cookies, query.state)
        except SignInError as error:
            return self._fail(error, None)  # the cookie stays: it may be of another tab, which is not done yet
        try:
            if query.error or not query.code:
                raise RefusedByProviderError(f"The identity provider says {query.error[:40]!r}.")
            response = self._return({"sign-in": sign_ins.finish(pending, query.code, query.iss)}, pending)
        except SignInError as error:
            response = self._fail(error, pending)
        self._pending.forget(response)
        return response

    def token(self, body: SignInCode) -> dict[str, Any]:
        """Exchange the code of a sign-in for the tokens of a login.

        The first sign-in of an identity creates an account without a password, if the operator allows that. An account
        of the same name is never taken over: that is 409. Its owner links the identity by `POST /account/identities/`.
        """
        username, pair = self._permit().redeem(body.code, body.code_verifier)
        return {"access": pair.access, "refresh": pair.refresh, "username": username}

    def _permit(self) -> "SignIns":
        if self._sign_ins is None:
            raise SignInOffError
        self._limiter.count()
        return self._sign_ins

    def _fail(self, error: SignInError, pending: PendingSignIn | None) -> Response:
        log.warning("sign-in failed", code=error.code, error=str(error))
        return self._return({"sign-in-error": error.code}, pending)

    def _return(self, result: dict[str, str], pending: PendingSignIn | None) -> Response:
        """Send the browser back to the client. The page finds the result behind the #, which no server gets."""
        if pending is None or pending.port is None:
            return redirect(f"{self._page}#{urlencode(result)}", HTTPStatus.SEE_OTHER)
        names = {"sign-in": "code", "sign-in-error": "error"}
        query = urlencode({names[name]: value for name, value in result.items()} | {"state": pending.challenge})
        return redirect(f"http://127.0.0.1:{pending.port}/?{query}", HTTPStatus.SEE_OTHER)
