"""The caller of a request: a user, by a login or by an API key."""

from dataclasses import dataclass
from uuid import UUID

from flask import g, request

from api.http.requests import request_id
from shared.accounts.audit import Actor
from shared.db.models import Scope


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """What an API key may do. See `ApiKey` for the fields."""

    id: int
    scopes: frozenset[str]
    models: frozenset[str] | None = None
    rate_limit: str | None = None
    monthly_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller: the user, their login or API key, and when that expires, in seconds since the epoch."""

    id: int
    username: str
    family: UUID | None  #: the login; None with an API key, and in an open room, which asks for neither
    expires_at: float
    is_admin: bool = False
    key: KeyGrant | None = None
    is_viewer: bool = False

    def has_scope(self, scope: Scope) -> bool:
        """Whether the caller may do this."""
        if scope == Scope.ADMIN and not self.is_admin:
            return False
        if scope == Scope.ADMIN_READ:
            if not (self.is_admin or self.is_viewer):
                return False
            return self.key is None or not self.key.scopes.isdisjoint((Scope.ADMIN_READ, Scope.ADMIN))
        return self.key is None or scope in self.key.scopes


def current_principal() -> Principal:
    """The caller of this request, as `Authenticator.authenticate_request` found it."""
    principal: Principal = g.principal
    return principal


def current_actor() -> Actor:
    """The caller of this request as the audit trail names it."""
    principal = current_principal()
    key_id = None if principal.key is None else principal.key.id
    return Actor(principal.id, key_id, request.remote_addr or "unknown", request_id())
