"""Signing in with an identity provider in requests and responses: pydantic models, and functions that render them."""

from typing import Annotated, Any

from pydantic import Field

from api.http.account_schemas import KnownPassword, TokenPair
from api.http.fields import MAX_ID, Id, Moment
from api.http.openapi.models import Answer, Body, Parameters, Query, example
from shared import timestamps
from shared.db.models import LinkedIdentity

_CHALLENGE = "A47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuF"

#: By RFC 7636, section 4.1.
Verifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9._~-]{43,128}$", description="Of the `code_challenge`.")]
Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,100}$", description="The code of the sign-in; single-use.")]


class SignInQuery(Query):
    """How a client starts a sign-in."""

    code_challenge: str = Field(
        pattern=r"^[A-Za-z0-9_-]{43}$",
        description="The base64url SHA-256 of a verifier of the client's own (RFC 7636, S256).",
        json_schema_extra=example(_CHALLENGE),
    )
    port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        description="Of 127.0.0.1, where a command line takes the code instead of the page.",
    )
    reauthenticate: bool = Field(False, description="Whether the user must authenticate again.")


class CallbackQuery(Parameters):
    """What the provider sends by the user's browser. It may send more, which is ignored."""

    state: str = Field("", max_length=500, description="Of the authorization request.")
    code: str = Field("", max_length=4_096, description="The provider's code.")
    error: str = Field("", max_length=500, description="The provider's error code.")
    iss: str | None = Field(None, max_length=2_048, description="The provider (RFC 9207).")


class SignInCode(Body):
    """The code of a sign-in, and the secret of the client that started it."""

    code: Code
    code_verifier: Verifier


class NewIdentity(Body):
    """A sign-in with the identity to link, and the account's password: a stolen token must not be enough."""

    code: Code
    code_verifier: Verifier
    password: KnownPassword


class IdentityPath(Parameters):
    identity_id: int = Field(ge=1, le=MAX_ID, description="The identity's `id`.", json_schema_extra=example(1))


class SignInMethod(Answer):
    """The identity provider with which people may sign in here."""

    name: str | None = Field(description="What people call it; null if there is none.")


class SignIn(TokenPair):
    """The tokens of a login, and the user."""

    username: str


class Identity(Answer):
    """An identity by which the caller signs in."""

    id: Id
    issuer: str = Field(description="The identity provider.")
    subject: str = Field(description="The user's id there.")
    created_at: Moment
    last_used_at: Moment | None


def identity_resource(identity: LinkedIdentity) -> dict[str, Any]:
    """Render an identity as an Identity."""
    return {
        "id": identity.id,
        "issuer": identity.issuer,
        "subject": identity.subject,
        "created_at": timestamps.rfc3339(identity.created_at),
        "last_used_at": timestamps.rfc3339_or_none(identity.last_used_at),
    }
