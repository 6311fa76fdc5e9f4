"""API keys: create, list, revoke."""

from collections.abc import Collection, Sequence
from http import HTTPStatus
from typing import Any

from flask import Response, abort, jsonify
from flask_openapi3 import Tag
from sqlalchemy.orm import Session

from api.auth import api_keys as own_keys
from api.auth.permissions import require_keys
from api.auth.principal import current_actor, current_principal
from api.auth.token_cache import is_live
from api.auth.tokens import Authenticator
from api.http import problems
from api.http.key_schemas import ApiKeyResource, CreatedApiKey, KeyPath, NewApiKey, api_key_resource
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import Responses, empty_response, error_responses, json_response
from api.http.requests import limit_body
from shared.accounts import api_keys, audit, budgets
from shared.accounts.api_keys import NewKey
from shared.accounts.budgets import Budget
from shared.db.engine import Sessions
from shared.db.models import ApiKey, Scope
from shared.errors import (
    InsufficientScopeError,
    InvalidTokenError,
    KeyLimitError,
    KeyNotFoundError,
    NotAllowedError,
)

_FORBIDDEN = InsufficientScopeError(Scope.KEYS_WRITE)

CREATE: Responses = {
    201: json_response(CreatedApiKey, "The key. This is the only time that it is shown.", "new key"),
    **error_responses(413, 415, _FORBIDDEN, NotAllowedError(own_keys.RESTRICTED), KeyLimitError()),
}
INDEX: Responses = {200: json_response([ApiKeyResource], "The keys, newest first.", "keys", "none")}
REVOKE: Responses = {204: empty_response("It is revoked."), **error_responses(KeyNotFoundError())}


class KeyRoutes:
    """Views of the caller's API keys.

    Args:
        model_routes: The model routes that a key may be limited to.
    """

    def __init__(self, sessions: Sessions, authenticator: Authenticator, *, model_routes: Collection[str]) -> None:
        self._sessions = sessions
        self._authenticator = authenticator
        self._model_routes = model_routes

    def blueprint(self) -> Blueprint:
        bp = Blueprint(
            "keys",
            __name__,
            url_prefix="/auth/keys",
            abp_tags=[Tag(name="API keys", description="Keys for programs, which call the service for their user.")],
            abp_security=[{"bearer": []}],
            abp_responses=error_responses(400, 401, _FORBIDDEN, 500, 503),
        )
        bp.before_request(limit_body)
        bp.before_request(self._authenticator.authenticate_request)
        bp.before_request(require_keys)
        bp.post("/", operation_id="createKey", responses=CREATE)(self.create)
        bp.get("/", operation_id="listKeys", responses=INDEX)(self.index)
        bp.delete("/<int:key_id>/", operation_id="revokeKey", responses=REVOKE)(self.revoke)
        return bp

    def create(self, body: NewApiKey) -> tuple[Response, int]:
        """Create an API key.

        It may be used wherever an access token may: `Authorization: Bearer pw_…`. By default it may read and write
        prompts. `keys:write` allows listing, creating and revoking keys; `admin` is only for keys of admins, and
        `admin:read` for those of admins and viewers. A key can create other keys only with scopes of its own, and only
        if it has no models, expiry, rate limit or budget.
        """
        principal = current_principal()
        own_keys.check_may_create(principal, body.scopes)
        self._check_models(body.models)
        new = NewKey(
            name=body.name,
            scopes=[scope.value for scope in Scope if scope in body.scopes],
            models=body.models,
            expires_at=body.expires_at,
            rate_limit=body.rate_limit,
            monthly_tokens=body.monthly_tokens,
        )
        return jsonify(self._store(new)), HTTPStatus.CREATED

    def index(self) -> Response:
        """List the caller's API keys, without the revoked ones.

        `used_tokens` and `reserved_tokens` are the numbers by which submissions with the key are refused.
        """
        user_id = current_principal().id
        with self._sessions() as session:
            return jsonify(_with_budgets(session, user_id, api_keys.list_all(session, user_id)))

    def revoke(self, path: KeyPath) -> tuple[str, int]:
        """Revoke an API key for good.

        This process refuses it at once, every other within a second. Its sockets and streams are closed.
        """
        principal = current_principal()
        with self._sessions.begin() as session:
            api_keys.revoke(session, path.key_id, user_id=principal.id)
            audit.record(session, current_actor(), "key.revoked", principal.id, key_id=path.key_id)
        self._authenticator.announce_logout(principal.id)
        return "", HTTPStatus.NO_CONTENT

    def _store(self, new: NewKey) -> dict[str, Any]:
        principal, key = current_principal(), own_keys.generate()
        with self._sessions.begin() as session:
            created = api_keys.create(session, principal.id, new, key)
            _check_is_live(session)
            audit.record(session, current_actor(), "key.created", principal.id, key_id=created.id, scopes=new.scopes)
            (shown,) = _with_budgets(session, principal.id, [created])
        return shown | {"key": key}

    def _check_models(self, models: Collection[str] | None) -> None:
        unknown = set(models or ()) - set(self._model_routes)
        if unknown:
            known = ", ".join(sorted(self._model_routes))
            abort(problems.invalid_field("models", f"There is no model {min(unknown)!r}. There are: {known}."))


def _with_budgets(session: Session, user_id: int, keys: Sequence[ApiKey]) -> list[dict[str, Any]]:
    """Render the user's API keys. Only if one has a budget, that is read."""
    states: dict[int | None, Budget] = {}
    if any(key.monthly_tokens is not None for key in keys):
        states = {state.key_id: state for state in budgets.read(session, [user_id], user_budget=None)[user_id]}
    return [api_key_resource(key, states.get(key.id)) for key in keys]


def _check_is_live(session: Session) -> None:
    """Check the caller once more, in the transaction: a cached token may be up to a second behind a revocation."""
    if not is_live(session, current_principal()):
        raise InvalidTokenError
