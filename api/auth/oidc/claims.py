"""Rules for the provider's claims: who may sign in, with which username, and whether as an admin."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from api.auth.oidc.errors import NotPermittedError
from shared.accounts import names
from shared.accounts.sign_in_codes import ConfirmedIdentity
from shared.settings import Settings

MAX_GROUPS = 10_000


class ClaimRules:
    """The settings about claims."""

    def __init__(self, settings: Settings) -> None:
        self._issuer = settings.oidc_issuer
        self._username_claim = settings.oidc_username_claim
        self._groups_claim = settings.oidc_groups_claim
        self._domains = frozenset(settings.oidc_allowed_domains)
        self._groups = frozenset(settings.oidc_allowed_groups)
        self._admin_group = settings.oidc_admin_group

    @property
    def needed(self) -> tuple[str, ...]:
        """The claims that are read."""
        return (
            self._username_claim,
            *(("email", "email_verified") if self._domains else ()),
            *((self._groups_claim,) if self._groups or self._admin_group else ()),
        )

    def apply(self, claims: Mapping[str, Any], *, reauthenticated: bool) -> ConfirmedIdentity:
        """The identity that these claims confirm.

        Raises:
            NotPermittedError: the user may not sign in.
        """
        groups = _groups(claims.get(self._groups_claim))
        if self._domains and _verified_domain(claims) not in self._domains:
            raise NotPermittedError("The user has no verified e-mail address of OIDC_ALLOWED_DOMAINS.")
        if self._groups and not self._groups & groups:
            raise NotPermittedError(f"The claim {self._groups_claim} has no group of OIDC_ALLOWED_GROUPS.")
        return ConfirmedIdentity(
            issuer=self._issuer,
            subject=claims["sub"],
            username=_username(claims.get(self._username_claim)),
            is_admin=self._admin_group in groups if self._admin_group else None,
            reauthenticated=reauthenticated,
        )


def _verified_domain(claims: Mapping[str, Any]) -> str | None:
    """The domain of the user's e-mail address, if the provider has verified that it is theirs."""
    email = claims.get("email")
    if not isinstance(email, str) or claims.get("email_verified") is not True:
        return None
    return email.rpartition("@")[2].lower()


def _groups(claim: object) -> frozenset[str]:
    listed = [claim] if isinstance(claim, str) else claim
    if not isinstance(listed, list) or len(listed) > MAX_GROUPS:
        return frozenset()
    return frozenset(group for group in listed if isinstance(group, str))


def _username(claim: object) -> str | None:
    """The username for a claim; of an e-mail address the part before the @. Other characters become hyphens."""
    if not isinstance(claim, str):
        return None
    local = claim[: 2 * names.MAX_USERNAME_LENGTH].partition("@")[0]
    plain = unicodedata.normalize("NFKD", local).encode("ascii", "ignore").decode()
    name = re.sub("[^A-Za-z0-9_.-]+", "-", plain).strip("-")[: names.MAX_USERNAME_LENGTH]
    return name if re.fullmatch(names.USERNAME_PATTERN, name) else None
