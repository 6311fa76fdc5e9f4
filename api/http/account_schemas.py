"""Users, their logins and accounts in requests and responses: pydantic models, and functions that render them."""

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from api.auth.principal import KeyGrant
from api.http.fields import Id, Moment, storable
from api.http.openapi.models import Answer, Body, Parameters, example
from shared import timestamps
from shared.accounts.logins import LiveLogin
from shared.accounts.names import (
    MAX_PASSWORD_LENGTH,
    MAX_USERNAME_LENGTH,
    MIN_PASSWORD_LENGTH,
    USERNAME_PATTERN,
    new_password,
    new_username,
)
from shared.db.models import Scope, User
from shared.request_body import STORABLE
from shared.settings import Settings

Username = Annotated[
    str,
    Field(json_schema_extra={"pattern": USERNAME_PATTERN, "maxLength": MAX_USERNAME_LENGTH}),
    AfterValidator(new_username),
]
#: A new password, in its normal form.
Password = Annotated[
    str,
    Field(
        min_length=MIN_PASSWORD_LENGTH,
        max_length=MAX_PASSWORD_LENGTH,
        json_schema_extra={"pattern": STORABLE, "format": "password"},
    ),
    AfterValidator(new_password),
]
#: A password that is checked.
KnownPassword = Annotated[
    str, Field(min_length=1, max_length=MAX_PASSWORD_LENGTH, json_schema_extra={"format": "password"})
]


class Registration(Body):
    """A new user."""

    username: Username = Field(
        description="Letters, digits, `_`, `.` and `-`, unique in any case; it cannot be changed."
    )
    password: Password = Field(description="Stored as an argon2id hash only.")


class Credentials(Body):
    """A username and its password."""

    username: Annotated[
        str,
        Field(min_length=1, max_length=MAX_USERNAME_LENGTH, json_schema_extra={"pattern": STORABLE}),
        AfterValidator(storable),
    ]
    password: KnownPassword


class RefreshToken(Body):
    """A login's newest refresh token."""

    refresh: Annotated[str, Field(min_length=1, max_length=4096)]


class PasswordChange(Body):
    """The current password, and the new one."""

    current_password: KnownPassword
    password: Password = Field(description="The new one.")


class AccountDeletion(Body):
    """The password, or a sign-in for which the user had to authenticate: a stolen token must not be enough."""

    password: KnownPassword | None = None
    code: str | None = Field(None, max_length=100, description="The code of a sign-in with `reauthenticate`.")
    code_verifier: str | None = Field(None, max_length=128, description="Of its `code_challenge`.")

    @model_validator(mode="after")
    def _require_proof(self) -> Self:
        if self.password is None and (self.code is None or self.code_verifier is None):
            raise ValueError("Send the password, or code and code_verifier of a new sign-in.")
        return self


class LoginPath(Parameters):
    login_id: UUID = Field(
        description="The login's `id`.", json_schema_extra=example("6a1c0d6e-8d4f-4c43-a0c0-5d2f2a3c6a11")
    )


class NewUser(Answer):
    """A registered user."""

    id: Id
    username: str
    created_at: Moment


class TokenPair(Answer):
    """The tokens of a login."""

    access: str = Field(description="For calls, as `Authorization: Bearer <access>`; valid for 15 minutes by default.")
    refresh: str = Field(description="For the next pair; single-use.")


class UserLimits(Answer):
    """The limits of one user, each with the name of its setting; null where there is none."""

    prompt_rate_limit: str = Field(description="How many prompts in which time, with API keys and without.")
    user_backlog_limit: int = Field(description="Unfinished prompts.")
    user_running_limit: int | None = Field(description="Prompts that run at the same time.")
    user_socket_limit: int = Field(description="WebSockets, for each API process.")
    user_wait_limit: int = Field(description="Streams, exports and waiting requests, for each API process.")
    user_search_limit: int = Field(description="Searches at the same time, for each API process.")
    user_monthly_tokens: int | None = Field(description="Tokens in a calendar month (UTC).")


class AccountKey(Answer):
    """What the API key of the caller may do, in addition to the user's limits."""

    id: Id
    scopes: list[Scope]
    models: list[str] | None = Field(description="The models that it may use; null for all.")
    rate_limit: str | None = Field(description="How many prompts in which time.")
    monthly_tokens: int | None = Field(description="Tokens in a calendar month (UTC).")


class Account(Answer):
    """The caller's account."""

    id: Id
    username: str
    is_admin: bool
    is_viewer: bool
    created_at: Moment
    has_password: bool = Field(description="False for users who sign in with an identity provider only.")
    authenticated_by: Literal["login", "api_key"]
    key: AccountKey | None = Field(description="The API key, if the caller has authenticated by one.")
    limits: UserLimits


class LoginEntry(Answer):
    """A login of the caller that has not ended."""

    id: Annotated[str, Field(json_schema_extra={"format": "uuid"})]
    created_at: Moment | None = Field(description="Null if an earlier release of the service has started it.")
    last_used_at: Moment | None = Field(description="When it began, or was last refreshed.")
    expires_at: Moment = Field(description="When it ends, unless it is refreshed before.")
    address: str | None = Field(description="The client's address at the last refresh.")
    user_agent: str | None = Field(description="The client's `User-Agent` at the last refresh, shortened.")
    is_current: bool = Field(description="Whether the caller uses it.")


def account_resource(user: User, key: KeyGrant | None, settings: Settings) -> dict[str, Any]:
    """Render the account of a caller as an Account."""
    return {
        "id": user.id,
        "username": user.username,
        "is_admin": user.is_admin,
        "is_viewer": user.is_viewer,
        "created_at": timestamps.rfc3339(user.created_at),
        "has_password": user.has_password,
        "authenticated_by": "login" if key is None else "api_key",
        "key": None if key is None else _account_key(key),
        "limits": {name: getattr(settings, name) for name in UserLimits.model_fields},
    }


def login_entry(login: LiveLogin, *, is_current: bool) -> dict[str, Any]:
    """Render a login as a LoginEntry."""
    return {
        "id": str(login.id),
        "created_at": timestamps.rfc3339_or_none(login.created_at),
        "last_used_at": timestamps.rfc3339_or_none(login.last_used_at or login.created_at),
        "expires_at": timestamps.rfc3339(login.expires_at),
        "address": login.address,
        "user_agent": login.user_agent,
        "is_current": is_current,
    }


def _account_key(key: KeyGrant) -> dict[str, Any]:
    return {
        "id": key.id,
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else sorted(key.models),
        "rate_limit": key.rate_limit,
        "monthly_tokens": key.monthly_tokens,
    }
