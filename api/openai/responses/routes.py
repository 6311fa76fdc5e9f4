"""Responses: create, retrieve, stream, cancel, delete, and their input."""

from collections.abc import Callable
from typing import Any

from flask import Response, jsonify
from flask_openapi3 import Tag
from sqlalchemy import Engine

from api.auth.principal import Principal, current_principal
from api.auth.tokens import Authenticator
from api.http.event_stream import event_stream
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import OVER_BUDGET, TOO_MANY_WAITS, Responses, json_response, rate_limited
from api.http.openapi.responses_examples import STREAM
from api.intake.endings import Endings
from api.intake.new_prompts import NewPrompts
from api.intake.submissions import Submissions
from api.intake.user_slots import UserSlots
from api.openai import answers
from api.openai.blueprint import openai_blueprint, openai_error_responses
from api.openai.headers import NewPromptHeaders
from api.openai.pages import page_of_items
from api.openai.responses.schemas import (
    DeletedResponse,
    InputItemList,
    InputItemsQuery,
    ResponsePath,
    ResponseQuery,
    ResponseResource,
)
from api.openai.responses.stream import ResponseStream
from api.realtime.long_poll import LongPoll
from shared.db.models import Scope
from shared.errors import (
    AlreadyEndedError,
    AnswerPendingError,
    IdempotencyKeyInUseError,
    IdempotencyKeyReusedError,
    InsufficientScopeError,
    InvalidFieldsError,
    NotAllowedError,
    NotSupportedError,
    OverloadedError,
    PromptCancelledError,
    PromptFailedError,
    PromptNotFoundError,
    StoppingError,
)
from shared.openai import ids, response_events, response_items, responses_request, stored_responses
from shared.openai.ids import IdPrefix
from shared.openai.parsed import ParsedRequest
from shared.openai.response_resource import StoredResponse, response_resource
from shared.openai.responses_request import ResponseRequest
from shared.prompts.idempotency import KeyUse
from shared.prompts.submission import NewPrompt
from shared.settings import Settings

_TAG = Tag(name="OpenAI", description="OpenAI's API, for its SDKs: set their base URL to `/v1` here.")
_NOT_FOUND = PromptNotFoundError("There is no such response. It may have been deleted.")
_WRITES = InsufficientScopeError(Scope.PROMPTS_WRITE)

#: The parameters that ask for a capability, where they have other names.
_PARAMETERS = {
    "reasoning_effort": "reasoning.effort",
    **dict.fromkeys(("json_object", "json_schema"), "text.format"),
    **dict.fromkeys(("images", "messages"), "input"),
}


def _streamed(described: dict[str, Any]) -> dict[str, Any]:
    return described | {"content": described["content"] | {"text/event-stream": {"example": STREAM}}}


CREATE: Responses = {
    200: _streamed(
        json_response(
            ResponseResource,
            "The response: completed, or queued with `background`. With `stream`, its events.",
            *("response", "response-queued", "response-calls"),
            headers=("Idempotency-Replayed",),
        )
    ),
    **openai_error_responses(
        *(413, 415, 503, rate_limited("1/second;10/minute"), TOO_MANY_WAITS, OVER_BUDGET, OverloadedError()),
        *(AnswerPendingError(), StoppingError(), PromptFailedError("The prompt failed: the model refused it.")),
        *(PromptCancelledError(), _NOT_FOUND, _WRITES, NotAllowedError("This API key may not use the model default.")),
        *(IdempotencyKeyInUseError(), IdempotencyKeyReusedError()),
    ),
}
SHOW: Responses = {
    200: _streamed(
        json_response(
            ResponseResource, "The response as it is. With `stream`, its events.", "response", "response-queued"
        )
    ),
    **openai_error_responses(_NOT_FOUND, TOO_MANY_WAITS),
}
INPUT_ITEMS: Responses = {
    200: json_response(InputItemList, "A page of the items.", "response-input"),
    **openai_error_responses(_NOT_FOUND),
}
CANCEL: Responses = {
    200: json_response(ResponseResource, "It has ended: by this, or before.", "response-cancelled", "response"),
    **openai_error_responses(_NOT_FOUND, _WRITES),
}
DELETE: Responses = {
    200: json_response(DeletedResponse, "It is deleted.", "response-deleted"),
    **openai_error_responses(_NOT_FOUND, _WRITES),
}


class ResponseRoutes:
    """Views of responses. Each is a prompt.

    Args:
        engine: In autocommit mode.
        make_stream: Makes the stream of a principal's response after the event of this number.
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
        make_stream: Callable[[Principal, StoredResponse, int], ResponseStream],
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

    def blueprint(self) -> Blueprint:
        bp = openai_blueprint("openai_responses", __name__, self._authenticator, _TAG)
        path = "/responses/<response_id>"
        bp.post("/responses", operation_id="createResponse", responses=CREATE)(self.create)
        bp.get(path, operation_id="getResponse", responses=SHOW)(self.show)
        bp.get(f"{path}/input_items", operation_id="listInputItems", responses=INPUT_ITEMS)(self.input_items)
        bp.post(f"{path}/cancel", operation_id="cancelResponse", responses=CANCEL)(self.cancel)
        bp.delete(path, operation_id="deleteResponse", responses=DELETE)(self.delete)
        return bp

    def create(self, body: ResponseRequest, header: NewPromptHeaders) -> Response:
        """Answer an input: wait for the answer, stream it, or answer at once with `background`.

        It is a prompt like any other: stored before it is answered, in the list, searchable, on sockets and webhooks.
        A caller that hangs up loses nothing. A parameter that is not served is refused (400).
        """
        principal = current_principal()
        parsed = self._parse(body, principal.id)
        new, key_use = self._new_prompt(parsed, principal), header.key_use("response", body, principal.id)

        def answer() -> Response:
            response, is_replay = self._store(principal, parsed, new, key_use)
            if body.stream:
                made = self._stream(principal, response)
            else:
                made = jsonify(self._resource(response)) if body.background else self._wait(principal, response)
            if is_replay:
                made.headers["Idempotency-Replayed"] = "true"
            return made

        if body.background and not body.stream:
            return answer()
        return self._slots.hold_while_sent(principal.id, answer)

    def show(self, path: ResponsePath, query: ResponseQuery) -> Response:
        """Get a response as it is, or its events.

        An event has the same `sequence_number` whenever and wherever it is sent. With `starting_after` the stream
        resumes behind that event, on any host, as long as the response is kept.
        """
        principal, response = current_principal(), self._find(path)
        if not query.stream:
            if query.starting_after is not None:
                raise InvalidFieldsError("needs stream=true", ["starting_after"])
            return jsonify(self._resource(response))
        after = -1 if query.starting_after is None else query.starting_after
        return self._slots.hold_while_sent(principal.id, lambda: self._stream(principal, response, after))

    def input_items(self, path: ResponsePath, query: InputItemsQuery) -> Response:
        """List the items of a response's input. Those of `previous_response_id` are items of that response."""
        items = _input_items(self._find(path))
        return jsonify(page_of_items(items, limit=query.limit, order=query.order, after=query.after))

    def cancel(self, path: ResponsePath) -> Response:
        """Cancel a response, for good. One that has ended stays as it is."""
        principal, response = current_principal(), self._find(path)
        try:
            prompt = self._endings.cancel(principal.id, response.prompt.id)
        except AlreadyEndedError:
            return jsonify(self._resource(self._find(path)))
        return jsonify(self._resource(response._replace(prompt=prompt)))

    def delete(self, path: ResponsePath) -> Response:
        """Delete a response: the prompt, its answer and its vector, whatever its status."""
        self._endings.delete(current_principal().id, self._find(path).prompt.id)
        return jsonify({"id": path.response_id, "object": "response", "deleted": True})

    def _parse(self, body: ResponseRequest, user_id: int) -> ParsedRequest:
        if body.previous_response_id is None and not responses_request.references(body):
            return responses_request.to_prompt(body)
        with self._engine.connect() as connection:
            parsed = responses_request.to_prompt(stored_responses.resolve(connection, user_id, body))
            return stored_responses.continue_from(connection, user_id, parsed)

    def _new_prompt(self, parsed: ParsedRequest, principal: Principal) -> NewPrompt:
        try:
            return self._new_prompts.from_openai(principal, parsed)
        except NotSupportedError as error:
            raise NotSupportedError(str(error), {_PARAMETERS.get(name, name) for name in error.fields}) from None

    def _store(
        self, principal: Principal, parsed: ParsedRequest, new: NewPrompt, key_use: KeyUse | None
    ) -> tuple[StoredResponse, bool]:
        """The response, and whether an earlier request with the same idempotency key has made it."""
        stored = self._submissions.store(new, key_use, principal.key)
        if not stored.is_replay:
            return StoredResponse(stored.prompt, parsed.asked, parsed.api_request or {}), False
        with self._engine.connect() as connection:
            return stored_responses.find(connection, principal.id, stored.prompt.id, unstored=True), True

    def _wait(self, principal: Principal, response: StoredResponse) -> Response:
        prompt = answers.wait(self._long_poll, principal.id, response.prompt.id, f"/v1/responses/{response.id}")
        return jsonify(self._resource(response._replace(prompt=prompt)))

    def _stream(self, principal: Principal, response: StoredResponse, after: int = -1) -> Response:
        return event_stream(self._make_stream(principal, response, after).encode())

    def _find(self, path: ResponsePath) -> StoredResponse:
        with self._engine.connect() as connection:
            prompt_id = ids.parse(IdPrefix.RESPONSE, path.response_id)
            return stored_responses.find(connection, current_principal().id, prompt_id)

    def _resource(self, response: StoredResponse) -> dict[str, Any]:
        """The resource. If an earlier attempt failed after it had published text, that is read again."""
        if response.prompt.attempt > 1 and response.prompt.answer.response_text is not None:
            with self._engine.connect() as connection:
                kept = stored_responses.interrupted_texts(connection, response.prompt.id)
            response = response.with_interrupted(kept)
        return response_resource(response, restarts=response_events.restarts(response))


def _input_items(response: StoredResponse) -> list[dict[str, Any]]:
    """The items of the input, in their order."""
    text = {"type": "message", "role": "user", "content": response.prompt.prompt_text}
    items = response.api_request.get("items") or [text]
    return [response_items.render(item, f"in_{response.prompt.id}_{n}") for n, item in enumerate(items, 1)]
