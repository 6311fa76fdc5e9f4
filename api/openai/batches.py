"""Batches, as OpenAI's API has them: files of requests that are answered with low priority."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from flask import Response, jsonify
from flask_openapi3 import Tag
from sqlalchemy.orm import Session

from api.auth.principal import current_principal
from api.auth.tokens import Authenticator
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import Responses, json_response
from api.openai.blueprint import openai_blueprint, openai_error_responses
from api.openai.file_schemas import BatchesQuery, BatchHeaders, BatchList, BatchObject, BatchPath, NewBatchBody
from api.openai.pages import listed
from shared.batches import batches, files
from shared.batches.batches import NewBatch
from shared.batches.endpoints import ENDPOINTS
from shared.batches.resource import batch_object
from shared.db.engine import Sessions
from shared.db.models import Batch, FilePurpose, Scope
from shared.errors import (
    BatchEndedError,
    BatchNotFoundError,
    FileNotStoredError,
    IdempotencyKeyInUseError,
    IdempotencyKeyReusedError,
    InsufficientScopeError,
    InvalidFieldsError,
    UserLimitError,
)
from shared.openai import ids
from shared.openai.ids import IdPrefix
from shared.prompts import idempotency
from shared.prompts.idempotency import KeyUse
from shared.settings import Settings

_TOO_MANY = UserLimitError(
    "You have 10 unfinished batches, the most that a user may have. Wait until one ends. (USER_BATCH_LIMIT)",
    limit="USER_BATCH_LIMIT",
)
_batch = partial(json_response, BatchObject)
_NOT_FOUND = openai_error_responses(BatchNotFoundError())
_WRITE = InsufficientScopeError(Scope.PROMPTS_WRITE)
CREATE: Responses = {
    200: _batch("It is stored, and its file will be validated.", "new batch", headers=("Idempotency-Replayed",)),
    **_NOT_FOUND,
    **openai_error_responses(
        *(413, 415, _TOO_MANY, _WRITE, BatchNotFoundError(), IdempotencyKeyInUseError(), IdempotencyKeyReusedError())
    ),
}
INDEX: Responses = {200: json_response(BatchList, "A page.", "batches"), **_NOT_FOUND}
SHOW: Responses = {200: _batch("The batch.", "running batch", "completed batch", "failed batch"), **_NOT_FOUND}
CANCEL: Responses = {
    200: _batch("It is being cancelled, or is cancelled already.", "cancelling batch"),
    **_NOT_FOUND,
    **openai_error_responses(BatchEndedError(), _WRITE),
}


class BatchRoutes:
    """Views of batches."""

    def __init__(self, settings: Settings, sessions: Sessions, authenticator: Authenticator) -> None:
        self._limit = settings.user_batch_limit
        self._sessions = sessions
        self._authenticator = authenticator

    def blueprint(self) -> Blueprint:
        tag = Tag(name="Batches", description="OpenAI's API: files of requests that are answered with low priority.")
        bp = openai_blueprint("openai_batches", __name__, self._authenticator, tag)
        one = "/batches/<string:batch_id>"
        bp.post("/batches", operation_id="createBatch", responses=CREATE)(self.create)
        bp.get("/batches", operation_id="listBatches", responses=INDEX)(self.index)
        bp.get(one, operation_id="getBatch", responses=SHOW)(self.show)
        bp.post(f"{one}/cancel", operation_id="cancelBatch", responses=CANCEL)(self.cancel)
        return bp

    def create(self, header: BatchHeaders, body: NewBatchBody) -> Response:
        """Answer every request of a file, with low priority, within the completion window.

        The whole file is validated first: if a line is invalid, the batch fails, and its `errors` name lines.
        """
        principal = current_principal()
        input_file = ids.parse(IdPrefix.FILE, body.input_file_id)
        key_use = None
        if header.idempotency_key is not None:
            fingerprint = idempotency.fingerprint(f"batch {body.model_dump_json(exclude_none=True)}")
            key_use = KeyUse(principal.id, header.idempotency_key, fingerprint)
        with self._sessions.begin() as session:
            known = self._known(session, key_use)
            if known is None:
                self._check(session, principal.id, input_file, body.endpoint)
                new = NewBatch(
                    user_id=principal.id,
                    key_id=None if principal.key is None else principal.key.id,
                    endpoint=body.endpoint,
                    input_file_id=input_file or 0,
                    completion_window=body.completion_window,
                    window=timedelta(hours=int(body.completion_window.removesuffix("h"))),
                    metadata=body.metadata,
                )
                batch = batches.create(session, new, limit=self._limit)
                if key_use is not None:
                    idempotency.remember(session, [(key_use, batch.id)])
            else:
                batch = batches.get(session, principal.id, known)
            response = jsonify(_objects(session, [batch])[0])
        if known is not None:
            response.headers["Idempotency-Replayed"] = "true"
        return response

    def index(self, query: BatchesQuery) -> dict[str, Any]:
        """List batches, newest first. The next page begins `after` the last batch of this one."""
        after = None if query.after is None else _number(query.after)
        with self._sessions() as session:
            # One more shows whether there is a next page.
            found = batches.page(session, current_principal().id, limit=query.limit + 1, after=after)
            return listed(_objects(session, found[: query.limit]), has_more=len(found) > query.limit)

    def show(self, path: BatchPath) -> dict[str, Any]:
        """Get a batch. Its counts are those of this moment."""
        with self._sessions() as session:
            return _objects(session, [batches.get(session, current_principal().id, _number(path.batch_id))])[0]

    def cancel(self, path: BatchPath) -> dict[str, Any]:
        """Cancel a batch. What is finished is kept; the files are readable once it is `cancelled`."""
        with self._sessions.begin() as session:
            batch = batches.cancel(session, current_principal().id, _number(path.batch_id))
            return _objects(session, [batch])[0]

    @staticmethod
    def _known(session: Session, key_use: KeyUse | None) -> int | None:
        """The batch that an earlier request with this key has created."""
        if key_use is None:
            return None
        (reservation,) = idempotency.reserve(session, [key_use])
        if isinstance(reservation, Exception):
            raise reservation
        return reservation

    @staticmethod
    def _check(session: Session, user_id: int, file_id: int | None, endpoint: str) -> None:
        if endpoint not in ENDPOINTS:
            raise InvalidFieldsError(f"must be one of: {', '.join(ENDPOINTS)}", ["endpoint"])
        try:
            purpose = files.get(session, user_id, file_id or 0).purpose
        except FileNotStoredError:
            raise InvalidFieldsError("There is no such file.", ["input_file_id"]) from None
        if purpose != FilePurpose.BATCH:
            raise InvalidFieldsError("The purpose of the file must be batch.", ["input_file_id"])


def _objects(session: Session, found: Sequence[Batch]) -> list[dict[str, Any]]:
    counts = batches.counts(session, found)
    return [batch_object(batch, counts[batch.id]) for batch in found]


def _number(batch_id: str) -> int:
    number = ids.parse(IdPrefix.BATCH, batch_id)
    if number is None:
        raise BatchNotFoundError
    return number
