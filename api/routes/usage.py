"""What the caller's prompts used, and the caller's budgets."""

from datetime import UTC, date, datetime

from flask import Response, jsonify
from flask_openapi3 import Tag
from sqlalchemy import Engine

from api.auth.permissions import require_prompts
from api.auth.principal import current_principal
from api.auth.tokens import Authenticator
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import Responses, error_responses, json_response
from api.http.request_schemas import UsageQuery
from api.http.response_schemas import UsageReport, usage_report
from shared.accounts import budgets, usage
from shared.accounts.usage import UsageBy
from shared.db.models import Scope
from shared.errors import InsufficientScopeError

USAGE: Responses = {
    200: json_response(UsageReport, "What was used.", "usage by day", "usage by model", "usage by key"),
    **error_responses(InsufficientScopeError(Scope.PROMPTS_READ)),
}


class UsageRoutes:
    """The view of the usage.

    Args:
        user_budget: USER_MONTHLY_TOKENS.
    """

    def __init__(self, authenticator: Authenticator, engine: Engine, *, user_budget: int | None) -> None:
        self._authenticator = authenticator
        self._engine = engine
        self._user_budget = user_budget

    def blueprint(self) -> Blueprint:
        bp = Blueprint(
            "usage",
            __name__,
            url_prefix="/usage",
            abp_tags=[Tag(name="Usage", description="Tokens and their cost, and budgets.")],
            abp_security=[{"bearer": []}],
            abp_responses=error_responses(400, 401, 500, 503),
        )
        bp.before_request(self._authenticator.authenticate_request)
        bp.before_request(require_prompts)
        bp.get("/", operation_id="getUsage", responses=USAGE)(self.show)
        return bp

    def show(self, query: UsageQuery) -> Response:
        """Get what the caller's prompts used, by day, model or API key.

        Each attempt counts on the day on which it ended, also if it failed, or if its prompt was cancelled or deleted.
        The tokens are those that the model reports; where it does not, they are estimated. An answer that came from an
        earlier prompt used nothing. The default is this month.

        `budgets` has the numbers by which submissions are refused.
        """
        principal, today = current_principal(), datetime.now(UTC).date()
        by = UsageBy(query.by)
        since, until = _period(query, today)
        with self._engine.connect() as connection:
            rows = usage.report(connection, by, since, until, user_id=principal.id)
            limits = budgets.read(connection, [principal.id], self._user_budget)[principal.id]
        return jsonify(usage_report(by, since, until, rows, limits))


def _period(query: UsageQuery, today: date) -> tuple[date, date]:
    """The first and the last day: of this month by default, and else up to today."""
    until = query.until or max(today, query.since or today)
    return query.since or until.replace(day=1), until
