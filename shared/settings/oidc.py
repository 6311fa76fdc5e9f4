"""Settings of signing in with an identity provider (OpenID Connect). Without OIDC_ISSUER it is off."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, field_validator
from pydantic_settings import NoDecode

from shared.settings import values


class OidcSettings(BaseModel):
    """See docs/accounts.md for what they mean together."""

    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_client_secret: SecretStr = SecretStr("")
    oidc_scopes: str = "openid profile email"
    oidc_name: str = "single sign-on"
    oidc_username_claim: str = "preferred_username"
    oidc_groups_claim: str = "groups"
    oidc_allowed_domains: Annotated[tuple[str, ...], NoDecode] = ()
    oidc_allowed_groups: Annotated[tuple[str, ...], NoDecode] = ()
    oidc_admin_group: str = ""
    oidc_create_accounts: bool | None = None

    @field_validator("oidc_issuer")
    @classmethod
    def _check_issuer(cls, value: str) -> str:
        parts = urlsplit(values.http_url(value))
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("an issuer has no user, query or fragment")
        return value

    @field_validator("oidc_scopes")
    @classmethod
    def _check_scopes(cls, value: str) -> str:
        if "openid" not in value.split():
            raise ValueError("openid must be one of them, as in: openid profile email")
        return " ".join(value.split())

    @field_validator("oidc_allowed_domains", mode="before")
    @classmethod
    def _split_domains(cls, value: object) -> object:
        return tuple(domain.lower() for domain in values.split(value)) if isinstance(value, str) else value

    @field_validator("oidc_allowed_groups", mode="before")
    @classmethod
    def _split_groups(cls, value: object) -> object:
        return tuple(values.split(value)) if isinstance(value, str) else value


def contradiction(settings: OidcSettings, *, app_env: str, public_url: str) -> str | None:
    """A sentence about what these settings lack; None if nothing."""
    if not settings.oidc_issuer:
        return None
    if not settings.oidc_client_id:
        return "OIDC_ISSUER needs OIDC_CLIENT_ID, the id of this service at the identity provider."
    if not public_url:
        return "OIDC_ISSUER needs PUBLIC_URL: the identity provider sends users back to it."
    if app_env == "prod" and not settings.oidc_issuer.startswith("https://"):
        return "OIDC_ISSUER must begin with https://, or anyone on the way could sign in as any user."
    return None
