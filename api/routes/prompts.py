"""Prompts: submit, get, wait, list, cancel, retry, delete."""

import zlib
from functools import partial
from http import HTTPStatus
from typing import Any

from flask import Response, jsonify, request
from flask_openapi3 import Tag
from pydantic_core import to_json
from sqlalchemy import Engine

from api.auth.permissions import require_prompts
from api.auth.principal import Principal, current_principal
from api.auth.tokens import Authenticator
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import (
    OVER_BUDGET,
    TOO_MANY_WAITS,
    Responses,
    empty_response,
    error_responses,
    json_response,
    rate_limited,
)
from api.http.pages import add_older_link, decode_before, json_page, set_location
from api.http.prompt_schemas import (
    PageQuery,
    PromptPath,
    PromptResource,
    ShowHeaders,
    ShownPrompt,
    Submission,
    SubmissionHeaders,
    shown_prompt,
)
from api.intake.endings import Endings
from api.intake.new_prompts import NewPrompts
from api.intake.submissions import Submissions
from api.realtime.long_poll import LongPoll, preferred_wait
from shared.db.models import UNFINISHED, CacheUse, Priority, Scope, Status
from shared.errors import (
    AlreadyEndedError,
    IdempotencyKeyInUseError,
    IdempotencyKeyReusedError,
    InsufficientScopeError,
    NotAllowedError,
    NotEndedError,
    OverloadedError,
    PromptEmptiedError,
    PromptNotFoundError,
)
from shared.prompts import idempotency, queries
from shared.prompts.idempotency import KeyUse
from shared.prompts.queries import PromptRow
from shared.prompts.resource import prompt_resource
from shared.prompts.submission import NewPrompt
from shared.settings import Settings

_prompt = partial(json_response, PromptResource)
_submitted = partial(
    _prompt,
    headers=("Location", "Retry-After", "Preference-Applied", "Idempotency-Replayed", "Cache-Status"),
    links=("getPrompt", "followPrompt", "cancelPrompt", "deletePrompt"),
)
_SHOWN = ("ETag", "Retry-After", "Preference-Applied", "Cache-Status")

SUBMIT: Responses = {
    201: _submitted("It ended within the preferred wait.", "completed", "cut off", "cached", "failed", "cancelled"),
    202: _submitted(
        "It is stored and will be answered, whatever fails meanwhile. For a replay: its current state.",
        *("queued", "completed"),
    ),
    **error_responses(
        *(413, 415, 503, rate_limited("1/second;10/minute"), TOO_MANY_WAITS, OVER_BUDGET, OverloadedError()),
        *(InsufficientScopeError(Scope.PROMPTS_WRITE), NotAllowedError("This API key may not use the model default.")),
        *(PromptNotFoundError(), IdempotencyKeyInUseError(), IdempotencyKeyReusedError()),
    ),
}
SHOW: Responses = {
    200: json_response(
        ShownPrompt,
        "The prompt. `Retry-After` is present until it has ended.",
        *("shown", "shown waiting", "shown completed", "with a schema", "shown failed", "shown emptied"),
        headers=_SHOWN,
    ),
    304: empty_response("It has not changed since the client's `ETag`.", headers=_SHOWN),
    **error_responses(PromptNotFoundError(), TOO_MANY_WAITS),
}
INDEX: Responses = {200: json_response([PromptResource], "A page.", "page", "none", headers=("Link",))}
CANCEL: Responses = {
    200: _prompt("It is cancelled.", "cancelled"),
    **error_responses(PromptNotFoundError(), AlreadyEndedError()),
}
RETRY: Responses = {
    202: _prompt("It is queued again.", "retried", headers=("Location", "Retry-After")),
    **error_responses(
        *(
            PromptNotFoundError(),
            NotEndedError(),
            PromptEmptiedError(),
            InsufficientScopeError(Scope.PROMPTS_WRITE),
            rate_limited("1/second;10/minute"),
            OVER_BUDGET,
            NotAllowedError("This API key may not use the model default."),
        )
    ),
}
DELETE: Responses = {204: empty_response("It is deleted."), **error_responses(PromptNotFoundError())}


class PromptRoutes:
    """Views of prompts."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        authenticator: Authenticator,
        submissions: Submissions,
        endings: Endings,
        long_poll: LongPoll,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._authenticator = authenticator
        self._submissions = submissions
        self._endings = endings
        self._long_poll = long_poll
        self._new_prompts = NewPrompts(settings)

    def blueprint(self) -> Blueprint:
        bp = Blueprint(
            "prompts",
            __name__,
            url_prefix="/prompts",
            abp_tags=[Tag(name="Prompts", description="Submit a prompt; then poll, wait, stream or listen.")],
            abp_security=[{"bearer": []}],
            abp_responses=error_responses(400, 401, InsufficientScopeError(Scope.PROMPTS_READ), 500, 503),
        )
        bp.before_request(self._authenticator.authenticate_request)
        bp.before_request(require_prompts)
        bp.post("/", operation_id="submitPrompt", responses=SUBMIT)(self.submit)
        bp.get("/", operation_id="listPrompts", responses=INDEX)(self.index)
        bp.get("/<int:prompt_id>/", operation_id="getPrompt", responses=SHOW)(self.show)
        bp.post("/<int:prompt_id>/cancel/", operation_id="cancelPrompt", responses=CANCEL)(self.cancel)
        bp.post("/<int:prompt_id>/retry/", operation_id="retryPrompt", responses=RETRY)(self.retry)
        bp.delete("/<int:prompt_id>/", operation_id="deletePrompt", responses=DELETE)(self.delete)
        return bp

    def submit(self, body: Submission, header: SubmissionHeaders) -> Response:
        """Store a prompt and queue it.

        With `Prefer: wait=N` the response comes when the prompt has ended, if that is in time.

        With `Idempotency-Key` the request can be repeated safely: the same key and body return the same prompt and add
        nothing; another body is refused (422), and so is a request that comes while the first one is still being stored
        (409). If the prompt was deleted since, the response is 404. A replay does not count against the limits.
        """
        principal, seconds = current_principal(), preferred_wait(header.prefer)
        with self._long_poll.slot(principal.id, seconds):
            new, key_use = self._new_prompt(body, principal), _key_use(body, header, principal)
            stored = self._submissions.store(new, key_use, principal.key)
            prompt = stored.prompt
            if seconds is not None:
                prompt = self._long_poll.wait_for_end(principal.id, prompt.id, seconds)
        if seconds is not None or stored.is_replay:
            prompt = self._with_queue_state(prompt)
        ended_in_time = seconds is not None and prompt.status not in UNFINISHED
        response = _prompt_response(prompt, HTTPStatus.CREATED if ended_in_time else HTTPStatus.ACCEPTED, seconds)
        set_location(response, f"/prompts/{prompt.id}/")
        if stored.is_replay:
            response.headers["Idempotency-Replayed"] = "true"
        return response

    def show(self, path: PromptPath, header: ShowHeaders) -> Response:
        """Get a prompt.

        With `Prefer: wait=N` the response comes as soon as the prompt has ended, or after N seconds with its current
        state.
        """
        seconds = preferred_wait(header.prefer)
        prompt = self._with_queue_state(self._read(path.prompt_id, seconds))
        etag = f"{prompt.status}-{prompt.attempt}-{prompt.seq or 0}"
        if prompt.emptied_at is not None:
            etag += "-emptied"
        if prompt.metadata:  # it may be changed
            etag += f"-{zlib.crc32(to_json(prompt.metadata))}"
        if prompt.status == Status.QUEUED:
            waiting = prompt.waiting_for
            next_attempt_at = waiting and waiting.next_attempt_at
            etag += f"-{prompt.position or 0}-{next_attempt_at.timestamp() if next_attempt_at else 0:.0f}"
            etag += "-paused" if waiting and waiting.reason == "paused" else ""
        if request.if_none_match.contains_weak(etag):
            response = Response(status=HTTPStatus.NOT_MODIFIED)
            _add_headers(response, prompt, seconds)
        else:
            response = _response(shown_prompt(prompt, current_principal().username), prompt, HTTPStatus.OK, seconds)
        response.headers["Cache-Control"] = "private, no-cache"
        response.set_etag(etag)
        return response

    def index(self, query: PageQuery) -> Response:
        """List the caller's prompts, newest first.

        The next page is in the `Link` header. Prompts that are submitted meanwhile cause no skip and no repeat. A page
        ends early when its prompts are large.
        """
        principal, max_bytes = current_principal(), self._settings.max_page_bytes
        before = decode_before(query.cursor)
        with self._engine.connect() as connection:
            prompts, has_more = queries.page(
                connection,
                principal.id,
                limit=query.limit,
                max_bytes=max_bytes,
                matching=query.filter(),
                start_after=before,
            )
            prompts = queries.with_queue_state(connection, prompts)
        response, count = json_page((prompt_resource(prompt, principal.username) for prompt in prompts), max_bytes)
        if has_more or count < len(prompts):
            before = prompts[count - 1].id
            add_older_link(response, "/prompts/", before=before, limit=query.limit, **query.link_parameters())
        return response

    def cancel(self, path: PromptPath) -> Response:
        """Cancel a prompt that has not ended, for good."""
        return _prompt_response(self._endings.cancel(current_principal().id, path.prompt_id), HTTPStatus.OK)

    def retry(self, path: PromptPath) -> Response:
        """Queue a failed or cancelled prompt again.

        It keeps its id, and its attempts continue to count. A retry counts as a submission, against all limits and
        budgets.
        """
        principal = current_principal()
        prompt = self._with_queue_state(self._submissions.retry(principal.id, path.prompt_id, principal.key))
        response = _prompt_response(prompt, HTTPStatus.ACCEPTED)
        set_location(response, f"/prompts/{prompt.id}/")
        return response

    def delete(self, path: PromptPath) -> tuple[str, int]:
        """Delete a prompt with its answer and its vector, whatever its status."""
        self._endings.delete(current_principal().id, path.prompt_id)
        return "", HTTPStatus.NO_CONTENT

    def _new_prompt(self, body: Submission, principal: Principal) -> NewPrompt:
        return self._new_prompts.make(
            principal,
            body.prompt_text,
            model=body.model,
            asked=body.asked(),
            metadata=body.metadata or None,
            websocket=body.websocket,
            priority=body.priority or Priority.DEFAULT,
            cache=self._cache_use(body),
            history=body.history or 0,
        )

    def _cache_use(self, body: Submission) -> CacheUse | None:
        wanted = self._settings.semantic_cache if body.cache is None else body.cache
        if not wanted:
            return None
        if body.history:
            return CacheUse.BYPASSED
        directives = request.headers.get("Cache-Control", "").lower().split(",")
        return CacheUse.REFUSED if "no-cache" in map(str.strip, directives) else CacheUse.ALLOWED

    def _read(self, prompt_id: int, wait_seconds: int | None) -> PromptRow:
        user_id = current_principal().id
        if wait_seconds is not None:
            with self._long_poll.slot(user_id, wait_seconds):
                return self._long_poll.wait_for_end(user_id, prompt_id, wait_seconds)
        with self._engine.connect() as connection:
            return queries.get(connection, user_id, prompt_id)

    def _with_queue_state(self, prompt: PromptRow) -> PromptRow:
        """The prompt; if it is queued, with its position, and why it waits."""
        if prompt.status != Status.QUEUED:
            return prompt
        with self._engine.connect() as connection:
            return queries.with_queue_state(connection, [prompt])[0]


def _key_use(body: Submission, header: SubmissionHeaders, principal: Principal) -> KeyUse | None:
    if header.idempotency_key is None:
        return None
    # Without defaults, so that keys stay valid when a new version adds a field.
    priority = None if body.priority == Priority.DEFAULT else body.priority
    shortest = body.model_copy(update={"history": body.history or None, "priority": priority})
    normalized = shortest.model_dump_json(exclude_none=True)
    return KeyUse(principal.id, header.idempotency_key, idempotency.fingerprint(normalized))


def _prompt_response(prompt: PromptRow, status: HTTPStatus, waited: int | None = None) -> Response:
    return _response(prompt_resource(prompt, current_principal().username), prompt, status, waited)


def _response(resource: dict[str, Any], prompt: PromptRow, status: HTTPStatus, waited: int | None) -> Response:
    response = jsonify(resource)
    response.status_code = status
    _add_headers(response, prompt, waited)
    return response


def _add_headers(response: Response, prompt: PromptRow, waited: int | None) -> None:
    if prompt.status in UNFINISHED:
        response.headers["Retry-After"] = "1"
    if waited is not None:
        response.headers["Preference-Applied"] = f"wait={waited}"
    if prompt.cache is not None and prompt.status == Status.COMPLETED:
        response.headers["Cache-Status"] = _cache_status(prompt.cache, prompt.answer.cached_from)


def _cache_status(use: str, cached_from: int | None) -> str:
    """Render Cache-Status (RFC 9211). The key is the prompt whose answer was used."""
    if cached_from is not None:
        return f'promptwire; hit; key="{cached_from}"'
    if use == CacheUse.BYPASSED:  # an answer with history is not stored for other prompts either
        return "promptwire; fwd=bypass"
    return f"promptwire; fwd={'miss' if use == CacheUse.ALLOWED else use}; stored"
