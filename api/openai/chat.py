"""Chat completions: create, streamed or not, retrieve and delete."""

from collections.abc import Callable

from flask import Response, jsonify
from flask_openapi3 import Tag
from sqlalchemy import Engine

from api.auth.principal import Principal, current_principal
from api.auth.tokens import Authenticator
from api.http.event_stream import event_stream
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.openai_examples import CHAT_STREAM
from api.http.openapi.responses import OVER_BUDGET, TOO_MANY_WAITS, Responses, json_response, rate_limited
from api.intake.endings import Endings
from api.intake.new_prompts import NewPrompts
from api.intake.submissions import Stored, Submissions
from api.intake.user_slots import UserSlots
from api.openai import answers, chat_stream
from api.openai.blueprint import openai_blueprint, openai_error_responses
from api.openai.headers import NewPromptHeaders
from api.openai.schemas import ChatCompletion, ChatCompletionChanges, ChatCompletionPath, DeletedChatCompletion
from api.openai.stored_chats import StoredChats
from api.realtime.long_poll import LongPoll
from api.realtime.text_stream import Position, TextStream
from shared.db.models import Scope
from shared.errors import (
    AnswerPendingError,
    IdempotencyKeyInUseError,
    IdempotencyKeyReusedError,
    InsufficientScopeError,
    NotAllowedError,
    OverloadedError,
    PromptCancelledError,
    PromptFailedError,
    PromptNotFoundError,
    StoppingError,
)
from shared.openai import chat_request, ids, stored_chats
from shared.openai.chat_request import ChatCompletionRequest
from shared.openai.chat_resource import Chunks, chat_completion
from shared.openai.ids import IdPrefix
from shared.prompts.idempotency import KeyUse
from shared.prompts.submission import NewPrompt
from shared.settings import Settings

_TAG = Tag(name="OpenAI", description="OpenAI's API, for its SDKs: set their base URL to `/v1` here.")
_WAITS = (
    TOO_MANY_WAITS,
    AnswerPendingError(),
    StoppingError(),
    PromptFailedError("The prompt failed: the model refused it."),
    PromptCancelledError(),
    PromptNotFoundError(),
)
_CREATED = json_response(
    ChatCompletion,
    "The answer; with `stream`, chunks of it as server-sent events.",
    *("chat-completion", "chat-tool-calls"),
    headers=("Idempotency-Replayed",),
)
CREATE: Responses = {
    200: _CREATED | {"content": _CREATED["content"] | {"text/event-stream": {"example": CHAT_STREAM}}},
    **openai_error_responses(
        *(413, 415, 503),
        *(rate_limited("1/second;10/minute"), OVER_BUDGET, OverloadedError(), *_WAITS),
        *(InsufficientScopeError(Scope.PROMPTS_WRITE), NotAllowedError("This API key may not use the model default.")),
        *(IdempotencyKeyInUseError(), IdempotencyKeyReusedError()),
    ),
}
SHOW: Responses = {
    200: json_response(ChatCompletion, "The answer.", "chat-completion", "chat-tool-calls"),
    **openai_error_responses(500, 503, *_WAITS),
}
UPDATE: Responses = SHOW | openai_error_responses(413, 415, InsufficientScopeError(Scope.PROMPTS_WRITE))
DELETE: Responses = {
    200: json_response(DeletedChatCompletion, "It is deleted.", "chat-deleted"),
    **openai_error_responses(PromptNotFoundError(), InsufficientScopeError(Scope.PROMPTS_WRITE)),
}


class ChatRoutes:
    """Views of chat completions. Each is a prompt.

    Args:
        make_stream: Makes the stream of a principal's prompt from a position in its text.
        slots: Limits the streams and waiting requests of a user.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        authenticator: Authenticator,
        submissions: Submissions,
        endings: Endings,
        long_poll: LongPoll,
        make_stream: Callable[[Principal, int, Position], TextStream],
        slots: UserSlots,
    ) -> None:
        self._engine = engine
        self._authenticator = authenticator
        self._submissions = submissions
        self._endings = endings
        self._long_poll = long_poll
        self._make_stream = make_stream
        self._slots = slots
        self._new_prompts = NewPrompts(settings)
        self._stored_chats = StoredChats(engine, settings.max_page_bytes)

    def blueprint(self) -> Blueprint:
        bp = openai_blueprint("openai_chat", __name__, self._authenticator, _TAG)
        path = "/chat/completions"
        bp.post(path, operation_id="createChatCompletion", responses=CREATE)(self.create)
        bp.get(f"{path}/<completion_id>", operation_id="getChatCompletion", responses=SHOW)(self.show)
        bp.post(f"{path}/<completion_id>", operation_id="updateChatCompletion", responses=UPDATE)(self.update)
        bp.delete(f"{path}/<completion_id>", operation_id="deleteChatCompletion", responses=DELETE)(self.delete)
        self._stored_chats.add_to(bp, path)
        return bp

    def create(self, body: ChatCompletionRequest, header: NewPromptHeaders) -> Response:
        """Answer a conversation.

        It is a prompt like any other: stored before it is answered, in the list, searchable, on sockets and webhooks.
        A caller that hangs up loses nothing: the answer is kept, and found under its id or by the same
        `Idempotency-Key`. A parameter that is not served is refused (400).
        """
        principal = current_principal()
        new, key_use = self._new_prompt(body, principal), header.key_use("chat completion", body, principal.id)
        return self._slots.hold_while_sent(principal.id, lambda: self._answer(principal, body, new, key_use))

    def _answer(
        self, principal: Principal, body: ChatCompletionRequest, new: NewPrompt, key_use: KeyUse | None
    ) -> Response:
        stored = self._submissions.store(new, key_use, principal.key)
        if body.stream:
            with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
            response = self._stream(principal, stored, with_usage=with_usage)
        else:
            response = self._wait(principal, stored.prompt.id)
        if stored.is_replay:
            response.headers["Idempotency-Replayed"] = "true"
        return response

    def show(self, path: ChatCompletionPath) -> Response:
        """Get the answer, as soon as there is one: like creating it, this waits until the prompt has ended."""
        principal, prompt_id = current_principal(), self._find(path.completion_id)
        with self._slots.hold(principal.id):
            return self._wait(principal, prompt_id)

    def update(self, path: ChatCompletionPath, body: ChatCompletionChanges) -> Response:
        """Replace the metadata. Like getting the answer, this waits until the prompt has ended."""
        principal = current_principal()
        with self._slots.hold(principal.id):
            with self._engine.connect() as connection:
                prompt_id = stored_chats.set_metadata(connection, principal.id, path.completion_id, body.metadata)
            return self._wait(principal, prompt_id)

    def delete(self, path: ChatCompletionPath) -> Response:
        """Delete the prompt, with its answer and its vector, whatever its status."""
        self._endings.delete(current_principal().id, self._find(path.completion_id))
        return jsonify({"id": path.completion_id, "object": "chat.completion.deleted", "deleted": True})

    def _new_prompt(self, body: ChatCompletionRequest, principal: Principal) -> NewPrompt:
        return self._new_prompts.from_openai(principal, chat_request.to_prompt(body))

    def _stream(self, principal: Principal, stored: Stored, *, with_usage: bool) -> Response:
        prompt = stored.prompt
        events = self._make_stream(principal, prompt.id, Position())
        return event_stream(chat_stream.encode(events, Chunks(prompt, with_usage=with_usage), _path(prompt.id)))

    def _wait(self, principal: Principal, prompt_id: int) -> Response:
        return jsonify(chat_completion(answers.wait(self._long_poll, principal.id, prompt_id, _path(prompt_id))))

    def _find(self, completion_id: str) -> int:
        """The prompt of a chat completion. Raises PromptNotFoundError."""
        with self._engine.connect() as connection:
            return stored_chats.find(connection, current_principal().id, completion_id).id


def _path(prompt_id: int) -> str:
    return f"/v1/chat/completions/{ids.make(IdPrefix.CHAT_COMPLETION, prompt_id)}"
