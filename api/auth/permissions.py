"""What a caller must be allowed to do. Each is a blueprint's `before_request`, after `authenticate_request`."""

from collections.abc import Callable

from flask import request

from api.auth.principal import current_principal
from shared.db.models import Scope
from shared.errors import InsufficientScopeError, LoginRequiredError

_READING = ("GET", "HEAD")


def require_scope(*, read: Scope, write: Scope) -> Callable[[], None]:
    """Require a scope: `read` for GET, `write` for all other methods."""

    def check() -> None:
        if request.method == "OPTIONS":
            return
        needed = read if request.method in _READING else write
        if not current_principal().has_scope(needed):
            raise InsufficientScopeError(needed)

    return check


require_prompts = require_scope(read=Scope.PROMPTS_READ, write=Scope.PROMPTS_WRITE)
require_keys = require_scope(read=Scope.KEYS_WRITE, write=Scope.KEYS_WRITE)
require_admin = require_scope(read=Scope.ADMIN_READ, write=Scope.ADMIN)


def require_login() -> None:
    """Require a login: API keys may not do this."""
    if request.method != "OPTIONS" and current_principal().key is not None:
        raise LoginRequiredError
