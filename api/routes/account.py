"""The caller's account."""

from typing import Any

from flask_openapi3 import Tag

from api.auth.permissions import require_prompts
from api.auth.principal import current_principal
from api.auth.tokens import Authenticator
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.models import Answer
from api.http.openapi.responses import Responses, error_responses, json_response
from api.http.response_schemas import Id
from shared.db.models import Scope
from shared.errors import InsufficientScopeError


class AccountResource(Answer):
    """An account."""

    id: Id
    username: str
    is_admin: bool


SHOW: Responses = {200: json_response(AccountResource, "The account.", "account")}


class AccountRoutes:
    """Views of the caller's account."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def blueprint(self) -> Blueprint:
        bp = Blueprint(
            "account",
            __name__,
            url_prefix="/account",
            abp_tags=[Tag(name="Account", description="The caller's account.")],
            abp_security=[{"bearer": []}],
            abp_responses=error_responses(400, 401, InsufficientScopeError(Scope.PROMPTS_READ), 500, 503),
        )
        bp.before_request(self._authenticator.authenticate_request)
        bp.before_request(require_prompts)
        bp.get("/", operation_id="showAccount", responses=SHOW)(self.show)
        return bp

    def show(self) -> dict[str, Any]:
        """Get the caller's account."""
        principal = current_principal()
        return {"id": principal.id, "username": principal.username, "is_admin": principal.is_admin}
