"""The endpoints whose requests a batch may have: how each is read, and how its answer is rendered."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from shared.errors import InvalidFieldsError
from shared.openai import chat_request, chat_resource, responses_request
from shared.openai.parsed import ParsedRequest
from shared.openai.response_resource import StoredResponse, response_resource


class Endpoint(NamedTuple):
    """An endpoint: a request's body as a prompt, and a completed prompt as the body of its response."""

    parse: Callable[[Mapping[str, Any]], ParsedRequest]
    render: Callable[[StoredResponse], dict[str, Any]]


#: What a line cannot have: its answer is in a file, and lines are in no order.
_NOT_IN_LINES = {"background": (None, False), "previous_response_id": (None,), "store": (None, True)}


def _parse_chat_completion(body: Mapping[str, Any]) -> ParsedRequest:
    _check_line(body)
    return chat_request.parse(body)


def _parse_response(body: Mapping[str, Any]) -> ParsedRequest:
    _check_line(body)
    return responses_request.parse(body)


def _check_line(body: Mapping[str, Any]) -> None:
    for name, allowed in _NOT_IN_LINES.items():
        if body.get(name) not in allowed:
            raise InvalidFieldsError(f"A line of a batch cannot have {name}: {body[name]!r:.100}.", [name])


def _render_chat_completion(stored: StoredResponse) -> dict[str, Any]:
    return chat_resource.chat_completion(stored.prompt)


ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": Endpoint(_parse_chat_completion, _render_chat_completion),
    "/v1/responses": Endpoint(_parse_response, response_resource),
}
