"""The API keys of a user."""

from collections.abc import Sequence
from typing import Any, cast

from .http import json_list, json_object
from .resources import ApiKey, NewApiKey, Scope
from .session import Session


class Keys:
    """Creates, lists and revokes API keys. With a key of its own, the client needs the scope `keys:write` for that."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(
        self,
        name: str,
        *,
        scopes: Sequence[Scope] | None = None,
        models: Sequence[str] | None = None,
        expires_at: str | None = None,
        rate_limit: str | None = None,
        monthly_tokens: int | None = None,
    ) -> NewApiKey:
        """Create a key. The server shows its `key` only this once. None of the limits applies unless you set it.

        Args:
            name: what the key is for.
            scopes: what it may do; by default `prompts:read` and `prompts:write`.
            models: the models that it may use.
            expires_at: until when it is valid, as `2027-01-31T12:00:00Z`.
            rate_limit: how many prompts it may submit, as `1/second;100/hour`, in addition to the limit of its user.
            monthly_tokens: how many tokens its prompts may use in a calendar month (UTC).
        """
        limits = {
            "scopes": None if scopes is None else list(scopes),
            "models": None if models is None else list(models),
            "expires_at": expires_at,
            "rate_limit": rate_limit,
            "monthly_tokens": monthly_tokens,
        }
        body: dict[str, Any] = {"name": name} | {field: value for field, value in limits.items() if value is not None}
        response = self._session.request("POST", "/auth/keys/", json=body, idempotent=False)
        return cast(NewApiKey, json_object(response, "id", "key"))

    def list(self) -> list[ApiKey]:
        """Return the keys that are not revoked, newest first."""
        return cast("list[ApiKey]", json_list(self._session.request("GET", "/auth/keys/"), "id", "prefix"))

    def revoke(self, key_id: int) -> None:
        """Revoke a key for good. Raises ProblemError (404) if there is no such key."""
        self._session.delete(f"/auth/keys/{key_id}/")
