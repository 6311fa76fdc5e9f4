"""The endpoints whose requests a batch may have: how each is read, and how its answer is rendered."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from shared.openai import chat_request, chat_resource
from shared.openai.parsed import ParsedRequest
from shared.prompts.queries import PromptRow


class Endpoint(NamedTuple):
    """An endpoint: a request's body as a prompt, and a completed prompt as the body of its response."""

    parse: Callable[[Mapping[str, Any]], ParsedRequest]
    render: Callable[[PromptRow], dict[str, Any]]


ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": Endpoint(chat_request.parse, chat_resource.chat_completion),
}
