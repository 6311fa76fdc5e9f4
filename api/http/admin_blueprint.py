"""Blueprints of routes for admins and viewers."""

from flask_openapi3 import Tag

from api.auth.admin_views import AdminViews
from api.auth.permissions import require_admin
from api.auth.tokens import Authenticator
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import error_responses
from shared.db.engine import Sessions
from shared.db.models import Scope
from shared.errors import InsufficientScopeError


def admin_blueprint(
    name: str, import_name: str, authenticator: Authenticator, sessions: Sessions, tag: Tag
) -> Blueprint:
    """A blueprint of routes below `/admin/`. Viewers may GET; each view is recorded in the audit trail."""
    bp = Blueprint(
        name,
        import_name,
        url_prefix="/admin",
        abp_tags=[tag],
        abp_security=[{"bearer": []}],
        abp_responses=error_responses(400, 401, 500, 503, InsufficientScopeError(Scope.ADMIN)),
    )
    bp.before_request(authenticator.authenticate_request)
    bp.before_request(require_admin)
    bp.before_request(AdminViews(sessions).record)
    return bp
