"""Single-use codes of sign-ins with the identity provider.

The provider sends the user's browser to the API, which must not put tokens into an address. So it stores what the
provider has confirmed, and sends the browser on with a code. The client that started the sign-in exchanges the code,
with a secret that only it has (PKCE, RFC 7636: the verifier of a challenge that came with the first request). Whoever
reads the code in the browser's history or in a log cannot use it.
"""

import base64
import hashlib
import secrets
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import delete, func, insert
from sqlalchemy.orm import Session

from shared.db.models import SignInCode
from shared.errors import InvalidSignInCodeError

LIFETIME = timedelta(minutes=5)


class ConfirmedIdentity(NamedTuple):
    """What the provider has confirmed. Each field is a column."""

    issuer: str
    subject: str
    username: str | None  #: for a new account; None if the provider says none that is valid
    is_admin: bool | None  #: None: the provider does not decide that
    reauthenticated: bool  #: whether the user had to authenticate just now


def challenge_of(verifier: str) -> str:
    """The S256 challenge of a verifier."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def create(session: Session, identity: ConfirmedIdentity, challenge: str) -> str:
    """A new code, for who knows the verifier of the challenge."""
    code = secrets.token_urlsafe()
    values = identity._asdict() | {"code_hash": _hash(code), "challenge": challenge}
    session.execute(insert(SignInCode).values(values | {"expires_at": func.now() + LIFETIME}))
    return code


def redeem(session: Session, code: str, verifier: str) -> ConfirmedIdentity:
    """Use a code up. If the transaction is rolled back, the code may be used again.

    Raises:
        InvalidSignInCodeError: it is not valid, has expired or was used, or the verifier is wrong.
    """
    valid = (
        SignInCode.code_hash == _hash(code),
        SignInCode.challenge == challenge_of(verifier),
        SignInCode.expires_at > func.now(),
    )
    columns = [getattr(SignInCode, name) for name in ConfirmedIdentity._fields]
    row = session.execute(delete(SignInCode).where(*valid).returning(*columns)).first()
    if row is None:
        raise InvalidSignInCodeError
    return ConfirmedIdentity(*row)


def purge(session: Session) -> None:
    """Delete codes that have expired."""
    session.execute(delete(SignInCode).where(SignInCode.expires_at < func.now()))


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()
