"""Errors in the shape of OpenAI's API, for every request below `/v1/`.

`api/http/problems.py` decides on the status, the headers and the message of every error. Here only the body is written
again, so that OpenAI's SDKs raise their own exceptions with our messages.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, json, request

from shared.openai import error_messages
from shared.openai.error_messages import parameter_name

PATH = "/v1"
#: OpenAI's SDKs repeat requests after 408, 409, 429 and 5xx, unless this header of the response says `false`.
SHOULD_RETRY = "x-should-retry"

_PROBLEM = "application/problem+json"
_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
#: The codes of errors that the same request would get again. A pending answer is another matter: with its
#: `Idempotency-Key`, a repeated request waits on for the same prompt.
_FINAL = frozenset({"insufficient_quota", "prompt_failed", "prompt_cancelled", "answer_pending"})
#: Codes of OpenAI's API for kinds of our errors, and for statuses. Other kinds are codes themselves.
_CODES: dict[str | int, str] = {
    "budget_exceeded": "insufficient_quota",
    "invalid_token": "invalid_api_key",  # nosec B105
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_exceeded",
}


def init_app(app: Flask) -> None:
    app.after_request(_render)


def is_openai_path(path: str) -> bool:
    """Whether errors of requests to this path have OpenAI's shape."""
    return path == PATH or path.startswith(f"{PATH}/")


def error_object(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> dict[str, dict[str, Any]]:
    """The body of an error."""
    default = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    kind = _TYPES.get(HTTPStatus(status), default)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def from_problem(problem: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The body of the error that this problem describes. The names of all invalid fields are in its message."""
    status, errors = problem["status"], problem.get("errors", [])
    messages = dict.fromkeys(error_messages.sentence(parameter_name(each["field"]), each["message"]) for each in errors)
    param = parameter_name(errors[0]["field"]) if errors else None
    return error_object(status, " ".join(messages) or problem["detail"], param=param or None, code=_code(problem))


def in_openai_shape(problem: Response) -> Response:
    """The same response with a body in OpenAI's shape."""
    problem.set_data(json.dumps(from_problem(problem.get_json())))
    problem.content_type = "application/json"
    return problem


def _render(response: Response) -> Response:
    if response.mimetype == _PROBLEM and is_openai_path(request.path):
        code = in_openai_shape(response).get_json()["error"]["code"]
        if code in _FINAL and not (code == "answer_pending" and "Idempotency-Key" in request.headers):
            response.headers[SHOULD_RETRY] = "false"
    return response


def _code(problem: Mapping[str, Any]) -> str | None:
    kind = re.split("[:/]", problem["type"])[-1].replace("-", "_")
    return _CODES.get(problem["status"]) if kind == "blank" else _CODES.get(kind, kind)
