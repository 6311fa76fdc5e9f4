"""What the caller's prompts used, and the caller's budgets."""

from flask import Response, jsonify
from flask_openapi3 import Tag
from sqlalchemy import Engine

from api.auth.permissions import require_prompts
from api.auth.principal import current_principal
from api.auth.tokens import Authenticator
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import Responses, error_responses, json_response
from api.http.usage_schemas import UsageAndBudgets, UsageQuery, budget_state, usage_report
from shared.accounts import budgets, usage
from shared.accounts.usage import UsageBy
from shared.db.models import Scope
from shared.errors import InsufficientScopeError

USAGE: Responses = {
    200: json_response(UsageAndBudgets, "What was used.", "usage by day", "usage by model", "usage by key"),
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
        principal = current_principal()
        by, (since, until) = UsageBy(query.by), query.days()
        with self._engine.connect() as connection:
            report = usage.report(connection, by, since, until, user_id=principal.id)
            limits = budgets.read(connection, [principal.id], self._user_budget)[principal.id]
        shown = [budget_state(budget) for budget in limits if not budget.is_revoked]
        return jsonify(usage_report(by, since, until, report) | {"budgets": shown})
