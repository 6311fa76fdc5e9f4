"""Prompts: submit, poll, wait, list, cancel, retry, delete."""

import base64
import binascii
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint, Tag
from werkzeug.exceptions import BadRequest

from api import tokens
from api.requests import request_id
from api.schemas import (
    MAX_ID,
    PageQuery,
    PromptPage,
    PromptPath,
    PromptResource,
    Submission,
    SubmissionHeaders,
    WaitHeaders,
    problems,
    prompt_resource,
)
from api.services import services
from api.waiting import preferred_wait, wait_for_end
from shared import events, idempotency, library, prompts
from shared.idempotency import Use
from shared.library import PromptRow
from shared.models import UNFINISHED
from shared.prompts import Draft

bp = APIBlueprint(
    "prompts",
    __name__,
    url_prefix="/prompts",
    abp_tags=[Tag(name="Prompts")],
    abp_security=[{"bearer": []}],
    abp_responses=problems(400, 401, 500, 503),
)
bp.before_request(tokens.authenticate)


@bp.post(
    "/",
    responses={201: PromptResource, 202: PromptResource, **problems(404, 409, 413, 415, 422, 429)},
)
def submit(body: Submission, header: SubmissionHeaders) -> Response:
    """Stores a prompt and queues it. With `Prefer: wait=N` answers when it has ended, if that is in time."""
    caller = tokens.current()
    draft = Draft(caller.id, body.prompt_text, body.websocket, request_id())
    use = None
    if header.idempotency_key is not None:
        use = Use(caller.id, header.idempotency_key, idempotency.fingerprint(body.model_dump_json()))
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


@bp.get("/<int:prompt_id>/", responses={200: PromptResource, 304: None, **problems(404)})
def show(path: PromptPath, header: WaitHeaders) -> Response:
    """A prompt. With `Prefer: wait=N` as soon as it has ended, or after N seconds with what there is."""
    caller = tokens.current()
    seconds = preferred_wait(header.prefer)
    if seconds is not None:
        prompt = wait_for_end(services(), caller.id, path.prompt_id, seconds)
    else:
        with services().autocommit.connect() as connection:
            prompt = library.get(connection, caller.id, path.prompt_id)
    etag = f"{prompt.status}-{prompt.attempt}-{prompt.seq or 0}"
    if request.if_none_match.contains_weak(etag):
        response = Response(status=HTTPStatus.NOT_MODIFIED)
        _describe(response, prompt, seconds)
    else:
        response = _shown(prompt, HTTPStatus.OK, seconds)
    response.headers["Cache-Control"] = "private, no-cache"
    response.set_etag(etag)
    return response


@bp.get("/", responses={200: PromptPage})
def index(query: PageQuery) -> Response:
    """The caller's prompts, newest first; the next page is in the `Link` header."""
    caller = tokens.current()
    before = None if query.cursor is None else _decode_cursor(query.cursor)
    with services().autocommit.connect() as connection:
        # One more than asked for tells whether there is a next page.
        found = library.page(connection, caller.id, limit=query.limit + 1, status=query.status, before=before)
    shown = found[: query.limit]
    response = jsonify([prompt_resource(prompt, caller.username) for prompt in shown])
    if len(found) > query.limit:
        following: dict[str, Any] = {"limit": query.limit, "cursor": _encode_cursor(shown[-1].id)}
        if query.status is not None:
            following["status"] = query.status.value
        response.headers["Link"] = f'</prompts/?{urlencode(following)}>; rel="next"'
    return response


@bp.post("/<int:prompt_id>/cancel/", responses={200: PromptResource, **problems(404, 409)})
def cancel(path: PromptPath) -> Response:
    """Ends a prompt that has not ended yet, for good."""
    caller = tokens.current()
    with services().sessions.begin() as session:
        ending = prompts.cancel(session, caller.id, path.prompt_id)
        prompt = library.get(session, caller.id, path.prompt_id)
    services().announcer.announce((caller.id, events.of_ending(ending)))
    return _shown(prompt, HTTPStatus.OK)


@bp.post("/<int:prompt_id>/retry/", responses={202: PromptResource, **problems(404, 409)})
def retry(path: PromptPath) -> Response:
    """Queues a failed or cancelled prompt again."""
    caller, settings = tokens.current(), services().settings
    with services().sessions.begin() as session:
        prompt = prompts.retry(
            session, caller.id, path.prompt_id, grace=settings.submit_grace, attempts=settings.max_attempts
        )
    services().submissions.hand_out([prompt.id])
    response = _shown(prompt, HTTPStatus.ACCEPTED)
    response.headers["Location"] = f"/prompts/{prompt.id}/"
    return response


@bp.delete("/<int:prompt_id>/", responses={204: None, **problems(404)})
def delete(path: PromptPath) -> tuple[str, int]:
    """Deletes a prompt with its answer and its vector, whatever its status."""
    caller = tokens.current()
    with services().sessions.begin() as session:
        deletion = prompts.remove(session, caller.id, path.prompt_id)
    services().announcer.announce((caller.id, events.of_deletion(deletion)))
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
