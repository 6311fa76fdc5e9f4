"""Prompts: submit, poll, wait, list, cancel, retry, delete."""

import base64
import binascii
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint, Tag
from werkzeug.exceptions import BadRequest

from api.auth import tokens
from api.http.openapi.responses import answer, empty, limited, problem_responses
from api.http.requests import request_id
from api.http.schemas import (
    MAX_ID,
    PageQuery,
    PromptPath,
    PromptResource,
    ShowHeaders,
    Submission,
    SubmissionHeaders,
    prompt_resource,
)
from api.realtime.long_poll import preferred_wait, wait_for_end
from api.services import services
from shared.db.models import UNFINISHED, CacheUse, Status
from shared.errors import (
    AlreadyEndedError,
    IdempotencyKeyInUseError,
    IdempotencyKeyReusedError,
    NotEndedError,
    OverloadedError,
    PromptNotFoundError,
)
from shared.messaging import announcements
from shared.prompts import idempotency, queries, submission
from shared.prompts.idempotency import KeyUse
from shared.prompts.queries import PromptRow
from shared.prompts.submission import NewPrompt
from shared.telemetry import metrics, tracing

bp = APIBlueprint(
    "prompts",
    __name__,
    url_prefix="/prompts",
    abp_tags=[Tag(name="Prompts", description="Submit, then poll, wait, follow or listen.")],
    abp_security=[{"bearer": []}],
    abp_responses=problem_responses(400, 401, 500, 503),
)
bp.before_request(tokens.authenticate)

_SUBMITTED = ("Location", "Retry-After", "Preference-Applied", "Idempotency-Replayed", "Cache-Status")
_LEADS_TO = ("getPrompt", "followPrompt", "cancelPrompt", "deletePrompt")


@bp.post(
    "/",
    operation_id="submitPrompt",
    responses={
        201: answer(
            PromptResource,
            "It has ended within the time that the client was ready to wait.",
            *("completed", "cached", "failed", "cancelled"),
            headers=_SUBMITTED,
            links=_LEADS_TO,
        ),
        202: answer(
            PromptResource,
            "It is stored and will be answered, whatever dies meanwhile. Of a replay: as it is now.",
            *("queued", "completed"),
            headers=_SUBMITTED,
            links=_LEADS_TO,
        ),
        **problem_responses(PromptNotFoundError(), IdempotencyKeyInUseError(), 413, 415, IdempotencyKeyReusedError()),
        **problem_responses(limited("1/second;10/minute"), 503, OverloadedError()),
    },
)
def submit(body: Submission, header: SubmissionHeaders) -> Response:
    """Stores a prompt and queues it.

    With `Prefer: wait=N` it answers when the prompt has ended, if that is in time.

    With `Idempotency-Key` it is safe to repeat: the same key and body give the same prompt, and add nothing; another
    body is refused (422), and so is a request that comes while the first one is still being stored (409). If the prompt
    has been deleted since, that is 404. A replay does not count against the limits.
    """
    caller = tokens.current()
    draft = NewPrompt(
        caller.id,
        body.prompt_text,
        body.websocket,
        request_id(),
        _cache_use(body),
        body.history or 0,
        tracing.current(),
    )
    use = None
    if header.idempotency_key is not None:
        same = body.model_copy(update={"history": body.history or None}).model_dump_json(exclude_none=True)
        use = KeyUse(caller.id, header.idempotency_key, idempotency.fingerprint(same))
    stored = services().submissions.store(draft, use)
    prompt, seconds = stored.prompt, preferred_wait(header.prefer)
    if seconds is not None:
        prompt = wait_for_end(services(), caller.id, prompt.id, seconds)
    ended_in_time = seconds is not None and prompt.status not in UNFINISHED
    response = _shown(prompt, HTTPStatus.CREATED if ended_in_time else HTTPStatus.ACCEPTED, seconds)
    response.headers["Location"] = f"/prompts/{prompt.id}/"
    if stored.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return response


_SHOWN = ("ETag", "Retry-After", "Preference-Applied", "Cache-Status")


@bp.get(
    "/<int:prompt_id>/",
    operation_id="getPrompt",
    responses={
        200: answer(
            PromptResource,
            "The prompt. `Retry-After` is there while it has not ended.",
            *("queued", "completed", "cached", "failed", "cancelled"),
            headers=_SHOWN,
        ),
        304: empty("It is still as the client has it.", headers=_SHOWN),
        **problem_responses(PromptNotFoundError()),
    },
)
def show(path: PromptPath, header: ShowHeaders) -> Response:
    """A prompt.

    With `Prefer: wait=N` as soon as it has ended, or after N seconds with what there is.
    """
    caller = tokens.current()
    seconds = preferred_wait(header.prefer)
    if seconds is not None:
        prompt = wait_for_end(services(), caller.id, path.prompt_id, seconds)
    else:
        with services().autocommit_engine.connect() as connection:
            prompt = queries.get(connection, caller.id, path.prompt_id)
    etag = f"{prompt.status}-{prompt.attempt}-{prompt.seq or 0}"
    if request.if_none_match.contains_weak(etag):
        response = Response(status=HTTPStatus.NOT_MODIFIED)
        _describe(response, prompt, seconds)
    else:
        response = _shown(prompt, HTTPStatus.OK, seconds)
    response.headers["Cache-Control"] = "private, no-cache"
    response.set_etag(etag)
    return response


@bp.get(
    "/",
    operation_id="listPrompts",
    responses={200: answer([PromptResource], "A page.", "page", "none", headers=("Link",))},
)
def index(query: PageQuery) -> Response:
    """The caller's prompts, newest first.

    The next page is in the `Link` header. What is submitted meanwhile causes no skip and no repeat.
    """
    caller = tokens.current()
    before = None if query.cursor is None else _decode_cursor(query.cursor)
    with services().autocommit_engine.connect() as connection:
        # One more than asked for tells whether there is a next page.
        found = queries.page(connection, caller.id, limit=query.limit + 1, status=query.status, before=before)
    shown = found[: query.limit]
    response = jsonify([prompt_resource(prompt, caller.username) for prompt in shown])
    if len(found) > query.limit:
        following: dict[str, Any] = {"limit": query.limit, "cursor": _encode_cursor(shown[-1].id)}
        if query.status is not None:
            following["status"] = query.status.value
        response.headers["Link"] = f'</prompts/?{urlencode(following)}>; rel="next"'
    return response


@bp.post(
    "/<int:prompt_id>/cancel/",
    operation_id="cancelPrompt",
    responses={
        200: answer(PromptResource, "It is cancelled.", "cancelled"),
        **problem_responses(PromptNotFoundError(), AlreadyEndedError()),
    },
)
def cancel(path: PromptPath) -> Response:
    """Ends a prompt that has not ended yet, for good."""
    caller = tokens.current()
    with services().sessions.begin() as session:
        ending = submission.cancel(session, caller.id, path.prompt_id)
        prompt = queries.get(session, caller.id, path.prompt_id)
    metrics.finished.labels(ending.change).inc()
    services().announcer.announce((caller.id, announcements.from_finished(ending)))
    return _shown(prompt, HTTPStatus.OK)


@bp.post(
    "/<int:prompt_id>/retry/",
    operation_id="retryPrompt",
    responses={
        202: answer(PromptResource, "It is queued again.", "retried", headers=("Location", "Retry-After")),
        **problem_responses(PromptNotFoundError(), NotEndedError()),
    },
)
def retry(path: PromptPath) -> Response:
    """Queues a failed or cancelled prompt again.

    It keeps its id, and its attempts go on counting.
    """
    caller, settings = tokens.current(), services().settings
    with services().sessions.begin() as session:
        prompt = submission.retry(
            session, caller.id, path.prompt_id, grace=settings.submit_grace, attempts=settings.max_attempts
        )
    services().submissions.enqueue([prompt.id])
    response = _shown(prompt, HTTPStatus.ACCEPTED)
    response.headers["Location"] = f"/prompts/{prompt.id}/"
    return response


@bp.delete(
    "/<int:prompt_id>/",
    operation_id="deletePrompt",
    responses={204: empty("It is gone."), **problem_responses(PromptNotFoundError())},
)
def delete(path: PromptPath) -> tuple[str, int]:
    """Deletes a prompt with its answer and its vector, whatever its status."""
    caller = tokens.current()
    with services().sessions.begin() as session:
        deletion = submission.delete(session, caller.id, path.prompt_id)
    services().announcer.announce((caller.id, announcements.from_deletion(deletion)))
    return "", HTTPStatus.NO_CONTENT


def _shown(prompt: PromptRow, status: HTTPStatus, waited: int | None = None) -> Response:
    response = jsonify(prompt_resource(prompt, tokens.current().username))
    response.status_code = status
    _describe(response, prompt, waited)
    return response


def _describe(response: Response, prompt: PromptRow, waited: int | None) -> None:
    if prompt.status in UNFINISHED:
        response.headers["Retry-After"] = "1"
    if waited is not None:
        response.headers["Preference-Applied"] = f"wait={waited}"
    if prompt.cache is not None and prompt.status == Status.COMPLETED:
        response.headers["Cache-Status"] = _cache_status(prompt.cache, prompt.answer.cached_from)


def _cache_use(body: Submission) -> CacheUse | None:
    wanted = services().settings.semantic_cache if body.cache is None else body.cache
    if not wanted:
        return None
    if body.history:
        return CacheUse.BYPASSED
    directives = request.headers.get("Cache-Control", "").lower().split(",")
    return CacheUse.REFUSED if "no-cache" in map(str.strip, directives) else CacheUse.ALLOWED


def _cache_status(use: str, cached_from: int | None) -> str:
    """As RFC 9211 has it. The key is the prompt whose answer was taken."""
    if cached_from is not None:
        return f'promptwire; hit; key="{cached_from}"'
    if use == CacheUse.BYPASSED:  # with history, it does not answer others either
        return "promptwire; fwd=bypass"
    return f"promptwire; fwd={'miss' if use == CacheUse.ALLOWED else use}; stored"


def _encode_cursor(prompt_id: int) -> str:
    return base64.urlsafe_b64encode(f"before:{prompt_id}".encode()).decode().rstrip("=")


def _decode_cursor(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        prompt_id = int(text.removeprefix("before:"))
    except (binascii.Error, ValueError):
        prompt_id = 0
    if not 0 < prompt_id <= MAX_ID or _encode_cursor(prompt_id) != cursor:
        raise BadRequest("The cursor is not one from a `next` link.")
    return prompt_id
