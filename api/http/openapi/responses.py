"""Descriptions of responses for the OpenAPI document, built from shared headers, links, examples and errors.

The examples of errors are rendered by `problems.py`, so that the document shows what clients get.
"""

import re
from collections import defaultdict
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from flask import Response
from limits import parse_many
from werkzeug.exceptions import RequestEntityTooLarge

from api.http import problems
from api.http.openapi.examples import ANSWERS
from api.http.openapi.models import Answer
from api.http.rate_limits import RateLimitedError
from shared.errors import BudgetExceededError, InvalidTokenError, PromptwireError, UserLimitError

Responses = dict[int | str, Any]

REGISTRATION_CLOSED = "Registration is closed here; ask the operator of this service for an account."

#: Examples of a user's limits.
TOO_MANY_WAITS = UserLimitError(
    "A user may have 100 streams and waiting requests at a time: end one, or poll without `Prefer: wait`. "
    "(USER_WAIT_LIMIT)",
    limit="USER_WAIT_LIMIT",
)
TOO_MANY_SEARCHES = UserLimitError(
    "A user may have 4 searches at a time: repeat this one when another has ended. (USER_SEARCH_LIMIT)",
    limit="USER_SEARCH_LIMIT",
)
OVER_BUDGET = BudgetExceededError(
    "The budget of this API key is 100000 tokens a month. 98200 are used and 1500 are reserved by unfinished prompts; "
    "this request needs 1012. It begins again on 2026-12-01 (UTC). (monthly_tokens)",
    limit="monthly_tokens",
    resets_at=datetime(2026, 12, 1, tzinfo=UTC),
)

_ALWAYS = "X-Request-ID"
#: gunicorn answers these itself, without the application's headers.
_BY_GUNICORN = (HTTPStatus.REQUEST_URI_TOO_LONG,)


def _header(description: str, example: str, *, required: bool = False, pattern: str | None = None) -> dict[str, Any]:
    schema = {"type": "string"} | ({} if pattern is None else {"pattern": pattern})
    return {"description": description, "required": required, "schema": schema, "example": example}


#: Response headers. A `required` one is in every response that lists it.
HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-ID": _header(
        "The request's id: the client's, or a new one. It is in the logs and in the prompt's events.",
        "7f0c6f2a5d1e4b7c9a3d8e6f5b4c3a21",
        required=True,
        pattern=r"^[A-Za-z0-9._:/+=-]{1,128}$",
    ),
    "Location": _header(
        "The resource's path.",
        "/prompts/1/",
        required=True,
        pattern=r"^(/[^?#]+)?/(prompts|webhooks|admin/operations)/[0-9]+/$",
    ),
    "Retry-After": _header("Seconds until the client should ask again.", "1", pattern=r"^[0-9]+$"),
    "Preference-Applied": _header("The applied `wait`, if one was preferred.", "wait=10", pattern=r"^wait=[0-9]+$"),
    "Idempotency-Replayed": _header(
        "`true` if an earlier request with this `Idempotency-Key` made the prompt.", "true", pattern="^true$"
    ),
    "ETag": _header(
        "The version of the prompt, for `If-None-Match`.", '"completed-1-1"', required=True, pattern='^"[a-z0-9-]+"$'
    ),
    "Link": _header(
        'The next page, `rel="next"`. Without it, this is the last page.',
        '</prompts/?limit=20&cursor=YmVmb3JlOjQx>; rel="next"',
    ),
    "Missing-Vectors": _header(
        "How many of the caller's completed prompts were not compared, because they could not be embedded yet.",
        "3",
        pattern="^[1-9][0-9]*$",
    ),
    "Cache-Status": _header(
        "Whether a completed prompt that could use the semantic cache was answered from it (RFC 9211).",
        'promptwire; hit; key="1"',
        pattern="^promptwire; (hit|fwd)",
    ),
    "RateLimit-Policy": _header(
        "The limits: at most `q` requests in `w` seconds.",
        '"1 per 1 second";q=1;w=1, "10 per 1 minute";q=10;w=60',
    ),
    "RateLimit": _header(
        "The exceeded limit: `r` requests are left, and its window ends in `t` seconds.",
        '"10 per 1 minute";r=0;t=37',
    ),
    "WWW-Authenticate": _header("How to authenticate.", "Bearer", required=True),
}

#: Operations on a submitted prompt, linked by the `id` in the response.
LINKS = {
    operation: {"operationId": operation, "parameters": {"prompt_id": "$response.body#/id"}, "description": description}
    for operation, description in {
        "getPrompt": "Get the prompt.",
        "followPrompt": "Stream its text as it is generated.",
        "cancelPrompt": "Cancel it.",
        "deletePrompt": "Delete it.",
    }.items()
}

#: Errors that do not depend on the operation, by status.
_COMMON: dict[int, dict[str, Response]] = {
    400: {
        "invalid": problems.problem(
            400, "The request is not valid.", errors=[{"field": "prompt_text", "message": "is required"}]
        ),
        "not-json": problems.problem(
            400, "The body is not valid JSON: EOF while parsing an object at line 1 column 17."
        ),
    },
    401: {
        "no-token": problems.from_error(
            InvalidTokenError("An access token or an API key is needed: Authorization: Bearer <token>.")
        )
    },
    403: {"registration-closed": problems.problem(403, REGISTRATION_CLOSED)},
    413: {"too-large": problems.problem(413, RequestEntityTooLarge.description)},
    414: {"too-long": problems.problem(414, "Request Line is too large (16384 > 8190)")},
    415: {"not-json-type": problems.problem(415, "Send the body as application/json.")},
    500: {"unexpected": problems.problem(500, "Something went wrong on our side.")},
    503: {"database-unavailable": problems.problem(503, "The database cannot be reached at the moment; try again.")},
}


def json_response(
    model: type[Answer] | list[type[Answer]], description: str, *examples: str, **options: Any
) -> dict[str, Any]:
    """Describe a response whose body is the model, or an array of it. `examples` are names in `examples.ANSWERS`."""
    is_list = isinstance(model, list)
    item = _reference("schemas", (model[0] if isinstance(model, list) else model).__name__)
    content = {
        "schema": {"type": "array", "items": item} if is_list else item,
        "examples": {name: _example(*ANSWERS[name]) for name in examples},
    }
    return empty_response(description, **options) | {"content": {"application/json": content}}


def empty_response(description: str, *, headers: tuple[str, ...] = (), links: tuple[str, ...] = ()) -> dict[str, Any]:
    """Describe a response without a body. `headers` and `links` are names in HEADERS and LINKS."""
    return {
        "description": description,
        "headers": {name: _reference("headers", name) for name in (*headers, _ALWAYS)},
        **({"links": {name: _reference("links", name) for name in links}} if links else {}),
    }


def error_responses(*errors: int | PromptwireError) -> Responses:
    """Describe the errors of an operation: statuses that any operation may answer, and errors of the domain."""
    named: dict[int, dict[str, Response]] = defaultdict(dict)
    for error in errors:
        if isinstance(error, int):
            named[error] |= _COMMON[error]
        else:
            response = problems.from_error(error)
            named[response.status_code][_name(response)] = response
    return {status: _error_response(status, responses) for status, responses in named.items()}


def rate_limited(limits: str) -> RateLimitedError:
    """An example of the error after the last of these limits is exceeded, for `error_responses`."""
    items = parse_many(limits)
    return RateLimitedError(items, items[-1], 37)


def _error_response(status: int, responses: dict[str, Response]) -> dict[str, Any]:
    sent = {name for response in responses.values() for name in response.headers.keys() & HEADERS.keys()}
    bodies = {name: response.get_json() for name, response in responses.items()}
    content = {
        "schema": _reference("schemas", "Problem"),
        "examples": {name: _example(body["detail"], body) for name, body in bodies.items()},
    }
    described = empty_response(HTTPStatus(status).phrase, headers=tuple(sorted(sent)))
    if status in _BY_GUNICORN:
        described["headers"] = {}
    return described | {"content": {"application/problem+json": content}}


def _name(response: Response) -> str:
    """Name a problem after its type or, if that is `about:blank`, after its status."""
    name = re.split("[:/]", response.get_json()["type"])[-1]
    return response.status.partition(" ")[2].lower().replace(" ", "-") if name == "blank" else name


def _example(summary: str, value: Any) -> dict[str, Any]:
    return {"summary": summary, "value": value}


def _reference(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}
