"""The list of chat completions, and the messages of their requests."""

from typing import Any

from flask import Response, jsonify
from sqlalchemy import Engine

from api.auth.principal import current_principal
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import Responses, json_response
from api.http.pages import within_bytes
from api.openai import answers
from api.openai.blueprint import openai_error_responses
from api.openai.pages import listed, page_of_items
from api.openai.schemas import (
    ChatCompletionList,
    ChatCompletionPath,
    ChatCompletionsQuery,
    ChatMessageList,
    ChatMessagesQuery,
)
from shared.errors import InvalidFieldsError, PromptCancelledError, PromptFailedError, PromptNotFoundError
from shared.openai import ids, stored_chats
from shared.openai.chat_resource import chat_completion
from shared.openai.ids import IdPrefix
from shared.prompts.filters import PromptFilter

INDEX: Responses = {200: json_response(ChatCompletionList, "A page of chat completions.", "chat-list")}
MESSAGES: Responses = {
    200: json_response(ChatMessageList, "A page of the messages.", "chat-messages"),
    **openai_error_responses(
        *(500, PromptFailedError("The prompt failed: the model refused it.")),
        *(PromptCancelledError(), PromptNotFoundError()),
    ),
}


class StoredChats:
    """Views of chat completions that have been created: a part of the routes of chat completions.

    Args:
        engine: In autocommit mode.
        max_bytes: Of a page.
    """

    def __init__(self, engine: Engine, max_bytes: int) -> None:
        self._engine = engine
        self._max_bytes = max_bytes

    def add_to(self, bp: Blueprint, path: str) -> None:
        """Add the routes below `path` to a blueprint."""
        bp.get(path, operation_id="listChatCompletions", responses=INDEX)(self.index)
        bp.get(f"{path}/<completion_id>/messages", operation_id="listChatMessages", responses=MESSAGES)(self.messages)

    def index(self, query: ChatCompletionsQuery) -> Response:
        """List the chat completions that have an answer, oldest first.

        The next page begins `after` the last one of this page. A page ends early when its answers are large. Those with
        `store: false` are not listed.
        """
        with self._engine.connect() as connection:
            prompts, has_more = stored_chats.page(
                connection,
                current_principal().id,
                limit=query.limit,
                max_bytes=self._max_bytes,
                matching=PromptFilter(model=query.model, metadata=query.metadata),
                ascending=query.order == "asc",
                start_after=_number(query.after),
            )
        shown = within_bytes(map(chat_completion, prompts), self._max_bytes)
        return jsonify(listed(shown, has_more=has_more or len(shown) < len(prompts)))

    def messages(self, path: ChatCompletionPath, query: ChatMessagesQuery) -> dict[str, Any]:
        """List the messages of the request that a chat completion has answered."""
        with self._engine.connect() as connection:
            prompt = stored_chats.find(connection, current_principal().id, path.completion_id)
        answers.check_answered(prompt)
        return page_of_items(stored_chats.messages(prompt), limit=query.limit, order=query.order, after=query.after)


def _number(completion_id: str | None) -> int | None:
    if completion_id is None:
        return None
    number = ids.parse(IdPrefix.CHAT_COMPLETION, completion_id)
    if number is None:
        raise InvalidFieldsError(f"{completion_id:.100} is not the id of a chat completion.", ["after"])
    return number
