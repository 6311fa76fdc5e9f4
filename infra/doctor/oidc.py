"""Check of the identity provider with which people sign in."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from api.auth.oidc.errors import ProviderUnavailableError
from api.auth.oidc.provider import IdentityProvider
from infra.doctor import Finding, Observation, Severity
from shared.settings import Settings

#: Anyone may have an account there.
_PUBLIC_HOSTS = ("accounts.google.com", "gitlab.com", "login.microsoftonline.com")


def identity_provider(settings: Settings) -> Iterator[Finding | Observation]:
    """The identity provider publishes its configuration and keys, and does not let all users in by accident."""
    if not settings.oidc_issuer:
        yield Observation("none (OIDC_ISSUER): people log in with passwords")
        return
    try:
        keys = IdentityProvider(settings).check()
    except ProviderUnavailableError as error:
        yield Finding(str(error), "Check OIDC_ISSUER, and that the API can reach it. Until then only passwords work.")
        return
    yield Observation(f"the identity provider answers; keys for signatures: {keys}")
    is_limited = settings.oidc_allowed_domains or settings.oidc_allowed_groups
    if urlsplit(settings.oidc_issuer).hostname in _PUBLIC_HOSTS and settings.oidc_creates_accounts and not is_limited:
        yield Finding(
            "Anyone with an account at this identity provider gets an account here.",
            "Set OIDC_ALLOWED_DOMAINS or OIDC_ALLOWED_GROUPS, or OIDC_CREATE_ACCOUNTS=false.",
            Severity.BEWARE,
        )
