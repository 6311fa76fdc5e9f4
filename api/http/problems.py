"""Error responses: RFC 9457 problem details. All of the API's errors are rendered here."""

import math
from http import HTTPStatus
from typing import Any

import structlog
from flask import Flask, Response, json
from flask_limiter import Limiter, RateLimitExceeded
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, NotFound

from api.http.rate_limits import RateLimitedError, policy_name, rate_limited_error
from api.http.requests import route_template
from shared import errors, timestamps
from shared.db.engine import cause, is_unavailable
from shared.telemetry import metrics
from shared.validation_messages import describe, field_name

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = 2
#: How many errors the response to an invalid request lists.
MAX_ERRORS = 20
#: Instead of werkzeug's sentence, which is for people who enter URLs.
NO_SUCH_PATH = "There is nothing at this path."

_STATUS: dict[type[errors.PromptwireError], HTTPStatus] = {
    errors.PromptNotFoundError: HTTPStatus.NOT_FOUND,
    errors.ModelNotFoundError: HTTPStatus.NOT_FOUND,
    errors.AlreadyEndedError: HTTPStatus.CONFLICT,
    errors.NotEndedError: HTTPStatus.CONFLICT,
    errors.PromptEmptiedError: HTTPStatus.CONFLICT,
    errors.UsernameTakenError: HTTPStatus.CONFLICT,
    errors.SignInOffError: HTTPStatus.NOT_FOUND,
    errors.InvalidSignInCodeError: HTTPStatus.BAD_REQUEST,
    errors.AccountRequiredError: HTTPStatus.FORBIDDEN,
    errors.IdentityTakenError: HTTPStatus.CONFLICT,
    errors.IdentityNotFoundError: HTTPStatus.NOT_FOUND,
    errors.LastSignInError: HTTPStatus.CONFLICT,
    errors.LoginNotFoundError: HTTPStatus.NOT_FOUND,
    errors.UserNotFoundError: HTTPStatus.NOT_FOUND,
    errors.OwnAccountError: HTTPStatus.CONFLICT,
    errors.InvalidCredentialsError: HTTPStatus.UNAUTHORIZED,
    errors.InvalidTokenError: HTTPStatus.UNAUTHORIZED,
    errors.KeyNotFoundError: HTTPStatus.NOT_FOUND,
    errors.KeyLimitError: HTTPStatus.CONFLICT,
    errors.OperationNotFoundError: HTTPStatus.NOT_FOUND,
    errors.CountChangedError: HTTPStatus.CONFLICT,
    errors.NotUndoableError: HTTPStatus.CONFLICT,
    errors.IdempotencyKeyInUseError: HTTPStatus.CONFLICT,
    errors.IdempotencyKeyReusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FileNotStoredError: HTTPStatus.NOT_FOUND,
    errors.FileInUseError: HTTPStatus.CONFLICT,
    errors.BatchNotFoundError: HTTPStatus.NOT_FOUND,
    errors.BatchEndedError: HTTPStatus.CONFLICT,
    errors.WebhookNotFoundError: HTTPStatus.NOT_FOUND,
    errors.WebhookDisabledError: HTTPStatus.CONFLICT,
    errors.TooManyWebhooksError: HTTPStatus.CONFLICT,
    errors.DeliveryNotFoundError: HTTPStatus.NOT_FOUND,
    errors.DeliveryPendingError: HTTPStatus.CONFLICT,
    errors.EventNotKeptError: HTTPStatus.CONFLICT,
    errors.SinceOutOfRangeError: HTTPStatus.CONFLICT,
    errors.OverloadedError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.UserLimitError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.ProviderError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.PromptFailedError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.AnswerRestartedError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.PromptCancelledError: HTTPStatus.CONFLICT,
    errors.AnswerPendingError: HTTPStatus.GATEWAY_TIMEOUT,
    errors.StoppingError: HTTPStatus.SERVICE_UNAVAILABLE,
}


def problem(
    status: int,
    detail: str,
    *,
    kind: str = "about:blank",
    headers: dict[str, str] | None = None,
    **members: Any,
) -> Response:
    """Make a problem+json response. `kind` is the problem's type, a URI."""
    title = HTTPStatus(status).phrase
    body = {"type": kind, "title": title, "status": int(status), "detail": detail, **members}
    response = Response(json.dumps(body), status, content_type="application/problem+json")
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    response.headers.update(headers or {})
    return response


def invalid(error: ValidationError) -> Response:
    """The response to a request that its model does not accept, with the first MAX_ERRORS errors."""
    listed = error.errors(include_url=False, include_input=False)[:MAX_ERRORS]
    found = [{"field": field_name(e["loc"]), "message": describe(e)} for e in listed]
    return _invalid(found)


def _invalid(found: list[dict[str, str]]) -> Response:
    return problem(HTTPStatus.BAD_REQUEST, "The request is not valid.", errors=found)


def invalid_field(field: str, message: str) -> Response:
    """The response to a request with one invalid field. `abort` sends it."""
    return problem(HTTPStatus.BAD_REQUEST, "The request is not valid.", errors=[{"field": field, "message": message}])


def init_app(app: Flask, limiter: Limiter) -> None:
    app.register_error_handler(errors.PromptwireError, from_error)
    app.register_error_handler(errors.OverloadedError, _overloaded)
    app.register_error_handler(errors.UserLimitError, _user_limited)
    app.register_error_handler(RateLimitedError, _rate_limited)
    app.register_error_handler(RateLimitExceeded, lambda error: _rate_limited(rate_limited_error(limiter, error)))
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(SQLAlchemyError, _database)
    app.register_error_handler(Exception, _unexpected)


def from_error(error: errors.PromptwireError) -> Response:
    """The response to an error of the domain."""
    if isinstance(error, RateLimitedError):
        return _rate_limit(error)
    if isinstance(error, errors.NotAllowedError):
        return _not_allowed(error)
    if isinstance(error, errors.WrongPasswordError):
        return _invalid([{"field": error.field, "message": error.reason}])
    if isinstance(error, errors.InvalidFieldsError):
        return _invalid([{"field": name, "message": str(error)} for name in error.fields])
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), None)
    if status is None:
        return _unexpected(error)
    wait = error.retry_after if isinstance(error, errors.ProviderUnavailableError | errors.UserLimitError) else None
    headers = {"Retry-After": str(max(1, math.ceil(wait)))} if wait is not None else None
    members = {}
    if isinstance(error, errors.BudgetExceededError):
        members["resets_at"] = timestamps.rfc3339(error.resets_at)
    return problem(status, str(error), kind=error.kind(), headers=headers, **members)


def _not_allowed(error: errors.NotAllowedError) -> Response:
    """The error code of RFC 6750, section 3.1, for a token that does not allow the request."""
    challenge = 'Bearer error="insufficient_scope"' + (f', scope="{error.scope}"' if error.scope else "")
    return problem(HTTPStatus.FORBIDDEN, str(error), kind=error.kind(), headers={"WWW-Authenticate": challenge})


def _overloaded(error: errors.OverloadedError) -> Response:
    metrics.overload_refusals.inc()
    return from_error(error)


def _user_limited(error: errors.UserLimitError) -> Response:
    metrics.rate_limited.labels(route_template(), error.limit).inc()
    return from_error(error)


def _rate_limited(error: RateLimitedError) -> Response:
    metrics.rate_limited.labels(route_template(), error.metric_label).inc()
    return from_error(error)


def _http(error: HTTPException) -> Response:
    if error.response is not None:  # it has its response already: abort(response), a redirect
        return error.response  # type: ignore[return-value]
    kept = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After", "Upgrade")}
    detail = NO_SUCH_PATH if error.description == NotFound.description else error.description or ""
    return problem(error.code or 500, detail, headers=kept)


def _rate_limit(error: RateLimitedError) -> Response:
    """Headers as in draft-ietf-httpapi-ratelimit-headers-10: the policies, and what is left of the exceeded one."""
    policies = ", ".join(f'"{policy_name(item)}";q={item.amount};w={item.get_expiry()}' for item in error.policies)
    headers = {
        "RateLimit-Policy": policies,
        "RateLimit": f'"{policy_name(error.breached)}";r=0;t={error.wait}',
        "Retry-After": str(error.wait),
    }
    return problem(HTTPStatus.TOO_MANY_REQUESTS, str(error), headers=headers)


def _database(error: SQLAlchemyError) -> Response:
    if not is_unavailable(error):
        return _unexpected(error)
    log.warning("postgres unavailable", error=cause(error))
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, "The database cannot be reached at the moment; try again.")


def _unexpected(error: Exception) -> Response:
    log.error("unexpected error", exc_info=error)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong on our side.")
