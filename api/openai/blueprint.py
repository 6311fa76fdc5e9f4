"""Blueprints of OpenAI's API, and the descriptions of its errors for the OpenAPI document."""

from typing import Any

from flask import Response
from flask_openapi3 import Tag

from api.auth.permissions import require_prompts
from api.auth.tokens import Authenticator
from api.http import requests
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.models import Answer
from api.http.openapi.responses import Responses, error_responses
from api.openai import errors
from shared.db.models import Scope
from shared.errors import InsufficientScopeError, PromptwireError


class OpenAIErrorDetails(Answer):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(Answer):
    """An error of OpenAI's API."""

    error: OpenAIErrorDetails


def openai_blueprint(name: str, import_name: str, authenticator: Authenticator, tag: Tag) -> Blueprint:
    """A blueprint of routes below `/v1/`: GET needs the scope prompts:read, all others prompts:write."""
    bp = Blueprint(
        name,
        import_name,
        url_prefix=errors.PATH,
        abp_tags=[tag],
        abp_security=[{"bearer": []}],
        abp_responses=openai_error_responses(400, 401, InsufficientScopeError(Scope.PROMPTS_READ), 500, 503),
    )
    bp.before_request(authenticator.authenticate_request)
    bp.before_request(require_prompts)
    bp.after_request(_add_duration)
    return bp


def _add_duration(response: Response) -> Response:
    response.headers["OpenAI-Processing-Ms"] = str(requests.elapsed_ms())
    return response


def openai_error_responses(*described: int | PromptwireError) -> Responses:
    """As `error_responses`, with bodies in OpenAI's shape."""
    return {status: _in_openai_shape(response) for status, response in error_responses(*described).items()}


def _in_openai_shape(response: dict[str, Any]) -> dict[str, Any]:
    (media,) = response["content"].values()
    examples = {name: each | {"value": errors.from_problem(each["value"])} for name, each in media["examples"].items()}
    content = {"schema": {"$ref": "#/components/schemas/OpenAIError"}, "examples": examples}
    return response | {"content": {"application/json": content}}
