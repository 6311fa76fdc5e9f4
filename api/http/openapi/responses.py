"""What routes say of their responses, put together from parts that are described once.

Errors are not described but made, by the code that answers with them: what the description shows is what clients get.
"""

from collections import defaultdict
from http import HTTPStatus
from typing import Any

from flask import Response
from limits import parse_many
from werkzeug.exceptions import RequestEntityTooLarge

from api.http import problems
from api.http.openapi.examples import ANSWERS
from api.http.openapi.models import Answer
from api.http.rate_limits import RateLimitedError
from shared.errors import InvalidTokenError, PromptwireError

Responses = dict[int | str, Any]

_ALWAYS = "X-Request-ID"
#: What gunicorn answers by itself has none of the application's headers.
_NOT_OURS = (HTTPStatus.REQUEST_URI_TOO_LONG,)


def _header(description: str, example: str, *, required: bool = False, pattern: str | None = None) -> dict[str, Any]:
    schema = {"type": "string"} | ({} if pattern is None else {"pattern": pattern})
    return {"description": description, "required": required, "schema": schema, "example": example}


#: Response headers. Those that are `required` are there in every response that is said to have them.
HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-ID": _header(
        "The request's id: the client's, or a new one. It is in the logs and in the events of a prompt.",
        "7f0c6f2a5d1e4b7c9a3d8e6f5b4c3a21",
        required=True,
        pattern=r"^[A-Za-z0-9._:/+=-]{1,128}$",
    ),
    "Location": _header("The prompt's path.", "/prompts/1/", required=True, pattern=r"^/prompts/[0-9]+/$"),
    "Retry-After": _header("In how many seconds to ask again.", "1", pattern=r"^[0-9]+$"),
    "Preference-Applied": _header("How long it was ready to wait, if asked to.", "wait=10", pattern=r"^wait=[0-9]+$"),
    "Idempotency-Replayed": _header(
        "`true` if an earlier request with this `Idempotency-Key` made the prompt.", "true", pattern="^true$"
    ),
    "ETag": _header(
        "Of this state of the prompt, for `If-None-Match`.", '"completed-1-1"', required=True, pattern='^"[a-z0-9-]+"$'
    ),
    "Link": _header(
        'To the next page, `rel="next"`; without it, this is the last one.',
        '</prompts/?limit=20&cursor=YmVmb3JlOjQx>; rel="next"',
    ),
    "Cache-Status": _header(
        "Of an answered prompt that was to be answered from an earlier one if possible: whether it was (RFC 9211).",
        'promptwire; hit; key="1"',
        pattern="^promptwire; (hit|fwd)",
    ),
    "RateLimit-Policy": _header(
        "The limits: at most `q` in `w` seconds.",
        '"1 per 1 second";q=1;w=1, "10 per 1 minute";q=10;w=60',
        required=True,
    ),
    "RateLimit": _header(
        "Of the limit run into: `r` are left now, `t` seconds until there are more.",
        '"10 per 1 minute";r=0;t=37',
        required=True,
    ),
    "WWW-Authenticate": _header("How to authenticate.", "Bearer", required=True),
}

#: Where a submitted prompt's id leads, from the `id` in the response.
LINKS = {
    operation: {"operationId": operation, "parameters": {"prompt_id": "$response.body#/id"}, "description": description}
    for operation, description in {
        "getPrompt": "The prompt, as it is then.",
        "followPrompt": "Its text, as it is generated.",
        "cancelPrompt": "Ends it.",
        "deletePrompt": "Deletes it.",
    }.items()
}

#: What any operation may be refused with, whatever it is about.
_COMMON: dict[int, dict[str, Response]] = {
    400: {
        "not-valid": problems.problem(
            400, "The request is not valid.", errors=[{"field": "prompt_text", "message": "Field required"}]
        ),
        "not-json": problems.problem(
            400, "The body is not valid JSON: EOF while parsing an object at line 1 column 17."
        ),
    },
    401: {"no-token": problems.refusal(InvalidTokenError("An access token is needed: Authorization: Bearer <token>."))},
    403: {"closed": problems.problem(403, "Registration is off here; ask whoever runs this service for an account.")},
    413: {"too-large": problems.problem(413, RequestEntityTooLarge.description)},
    414: {"too-long": problems.problem(414, "Request Line is too large (16384 > 8190)")},
    415: {"not-called-json": problems.problem(415, "Send the body as application/json.")},
    500: {"unexpected": problems.problem(500, "Something went wrong on our side.")},
    503: {"database-away": problems.problem(503, "The database cannot be reached at the moment; try again.")},
}


def answer(model: type[Answer] | list[type[Answer]], description: str, *examples: str, **more: Any) -> dict[str, Any]:
    """A response with a body: one of the model, or an array of them. `examples` are names of `examples.ANSWERS`."""
    is_list = isinstance(model, list)
    item = _reference("schemas", (model[0] if isinstance(model, list) else model).__name__)
    content = {
        "schema": {"type": "array", "items": item} if is_list else item,
        "examples": {name: _example(*ANSWERS[name]) for name in examples},
    }
    return empty(description, **more) | {"content": {"application/json": content}}


def empty(description: str, *, headers: tuple[str, ...] = (), links: tuple[str, ...] = ()) -> dict[str, Any]:
    """A response without a body."""
    return {
        "description": description,
        "headers": {name: _reference("headers", name) for name in (*headers, _ALWAYS)},
        **({"links": {name: _reference("links", name) for name in links}} if links else {}),
    }


def problem_responses(*kinds: int | PromptwireError) -> Responses:
    """The errors that an operation may end with: statuses, and what the domain refuses."""
    named: dict[int, dict[str, Response]] = defaultdict(dict)
    for kind in kinds:
        if isinstance(kind, int):
            named[kind] |= _COMMON[kind]
        else:
            response = problems.refusal(kind)
            named[response.status_code][_name(response)] = response
    return {status: _refused(status, responses) for status, responses in named.items()}


def limited(limits: str) -> RateLimitedError:
    """What a client gets that has run into the last of these limits."""
    items = parse_many(limits)
    return RateLimitedError(items, items[-1], 37)


def _refused(status: int, responses: dict[str, Response]) -> dict[str, Any]:
    sent = {name for response in responses.values() for name in response.headers.keys() & HEADERS.keys()}
    bodies = {name: response.get_json() for name, response in responses.items()}
    content = {
        "schema": _reference("schemas", "Problem"),
        "examples": {name: _example(body["detail"], body) for name, body in bodies.items()},
    }
    described = empty(HTTPStatus(status).phrase, headers=tuple(sorted(sent)))
    if status in _NOT_OURS:
        described["headers"] = {}
    return described | {"content": {"application/problem+json": content}}


def _name(response: Response) -> str:
    """The problem's name, made of its type and, where that says nothing, of its status."""
    _, _, name = response.get_json()["type"].rpartition(":")
    return response.status.partition(" ")[2].lower().replace(" ", "-") if name == "blank" else name


def _example(summary: str, value: Any) -> dict[str, Any]:
    return {"summary": summary, "value": value}


def _reference(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}
