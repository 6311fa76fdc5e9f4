"""The state of a sign-in that has been started, for the callback. It is in a signed cookie of the user's browser.

Only the browser that started a sign-in has the cookie, so an attacker cannot sign other users in with an authorization
code of the attacker (login CSRF). The cookie lives for MAX_AGE_SECONDS. A new sign-in replaces it.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.wrappers import Response

from api.auth.oidc.errors import ExpiredSignInError

#: For people who must find their password or second factor first.
MAX_AGE_SECONDS = 600
_NAME = "promptwire-sign-in"
_SIGNER = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}


class PendingSignIn(NamedTuple):
    """The parameters of a started sign-in."""

    state: str
    nonce: str
    verifier: str  #: for the code challenge that was sent to the provider
    challenge: str  #: the client's code challenge; the client has the verifier
    port: int | None  #: the port on which a command line listens; None for the page
    reauthenticate: bool

    @classmethod
    def start(cls, challenge: str, port: int | None, *, reauthenticate: bool) -> "PendingSignIn":
        state, nonce, verifier = (secrets.token_urlsafe() for _ in range(3))
        return cls(state, nonce, verifier, challenge, port, reauthenticate)


class PendingSignIns:
    """Stores started sign-ins in cookies.

    Args:
        is_secure: Whether the API is reached by HTTPS. Then the cookie's name has the prefix `__Host-`, so that
            browsers take it neither from another host of the domain nor over plain HTTP.
    """

    def __init__(self, secret: str, *, is_secure: bool) -> None:
        self._serializer = URLSafeTimedSerializer(secret, "promptwire.oidc", signer_kwargs=_SIGNER)
        self._is_secure = is_secure
        self._name = f"__Host-{_NAME}" if is_secure else _NAME

    def store(self, response: Response, pending: PendingSignIn) -> None:
        """Set the cookie."""
        value = self._serializer.dumps(pending)
        response.set_cookie(
            self._name, str(value), MAX_AGE_SECONDS, secure=self._is_secure, httponly=True, samesite="Lax"
        )

    def load(self, cookies: Mapping[str, str], state: str) -> PendingSignIn:
        """The sign-in of this state.

        Raises:
            ExpiredSignInError: the cookie is missing, has expired, or belongs to another sign-in.
        """
        try:
            values = self._serializer.loads(cookies.get(self._name, ""), max_age=MAX_AGE_SECONDS)
        except BadData as error:
            raise ExpiredSignInError("This browser has not started a sign-in in the last ten minutes.") from error
        pending = PendingSignIn(*values)
        if not hmac.compare_digest(pending.state.encode(), state.encode()):
            raise ExpiredSignInError("The browser has started another sign-in since.")
        return pending

    def forget(self, response: Response) -> None:
        """Delete the cookie."""
        response.delete_cookie(self._name, secure=self._is_secure, httponly=True, samesite="Lax")
