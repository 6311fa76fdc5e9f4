"""The console's calls: retrying and cancelling many prompts, pausing models, listing workers and models.

The other calls of admins are in `api/routes/admin.py`.
"""

from http import HTTPStatus
from typing import Any

from flask import Response, abort, jsonify
from flask_openapi3 import Tag
from sqlalchemy import Engine

from api.auth.principal import current_actor, current_principal
from api.auth.tokens import Authenticator
from api.http import operation_schemas as schemas
from api.http import problems
from api.http.admin_blueprint import admin_blueprint
from api.http.admin_schemas import Provider, provider
from api.http.fields import MAX_ID
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import Responses, error_responses, json_response
from api.http.operation_schemas import ModelPath, NewOperation, OperationPath, OperationsQuery, PauseBody
from api.http.pages import decode_before, older_page, set_location
from shared.accounts import audit
from shared.db.engine import Sessions
from shared.errors import (
    CountChangedError,
    ModelNotFoundError,
    NotUndoableError,
    OperationNotFoundError,
)
from shared.messaging.queue import MAX_PROMPTS_PER_MESSAGE, Queue
from shared.operators import operations, worker_hosts
from shared.operators.filters import STATUSES
from shared.prompts import concurrency, model_pause, overview
from shared.prompts.overview import ProviderState
from shared.settings import Settings

_NO_OPERATION = OperationNotFoundError()
_STATE = json_response(Provider, "The model's state.", "admin model")

BEGIN: Responses = {
    200: json_response(schemas.OperationCount, "A dry run: how many prompts match.", "operation count"),
    202: json_response(schemas.AdminOperation, "Workers carry it out.", "admin operation", headers=("Location",)),
    **error_responses(
        413, 415, CountChangedError("12 prompts match by now, not 11. Count again, and confirm the new number.")
    ),
}
OPERATIONS: Responses = {
    200: json_response([schemas.AdminOperation], "A page, the newest first.", "admin operations", headers=("Link",))
}
OPERATION: Responses = {
    200: json_response(schemas.AdminOperation, "The operation.", "admin operation"),
    **error_responses(_NO_OPERATION),
}
UNDO: Responses = {
    202: json_response(schemas.AdminOperation, "It changes nothing more.", "admin operation"),
    **error_responses(_NO_OPERATION, NotUndoableError()),
}
WORKERS: Responses = {200: json_response([schemas.WorkerHost], "The hosts, by name.", "admin workers")}
MODELS: Responses = {200: json_response([Provider], "The models, by name.", "admin models")}
PAUSE: Responses = {200: _STATE, **error_responses(413, 415, ModelNotFoundError())}
RESUME: Responses = {200: _STATE, **error_responses(ModelNotFoundError())}


class OperationRoutes:
    """Views for operators."""

    def __init__(
        self, settings: Settings, sessions: Sessions, engine: Engine, authenticator: Authenticator, queue: Queue
    ) -> None:
        self._ceilings = {route: model.concurrency_ceiling for route, model in settings.models.items()}
        self._sessions = sessions
        self._engine = engine
        self._authenticator = authenticator
        self._queue = queue

    def blueprint(self) -> Blueprint:
        tag = Tag(name="Operations", description="Retrying and cancelling by filter, pausing models, workers.")
        bp = admin_blueprint("operations", __name__, self._authenticator, self._sessions, tag)
        bp.post("/operations/", operation_id="beginOperation", responses=BEGIN)(self.begin)
        bp.get("/operations/", operation_id="listOperations", responses=OPERATIONS)(self.operations)
        one = "/operations/<int:operation_id>/"
        bp.get(one, operation_id="getOperation", responses=OPERATION)(self.operation)
        bp.post(f"{one}undo/", operation_id="undoOperation", responses=UNDO)(self.undo)
        bp.get("/workers/", operation_id="listWorkers", responses=WORKERS)(self.workers)
        bp.get("/models/", operation_id="listModelStates", responses=MODELS)(self.models)
        bp.post("/models/<model>/pause/", operation_id="pauseModel", responses=PAUSE)(self.pause)
        bp.post("/models/<model>/resume/", operation_id="resumeModel", responses=RESUME)(self.resume)
        return bp

    def begin(self, body: NewOperation) -> Response:
        """Retry or cancel all prompts that match a filter.

        Count first, with `dry_run`, then send the same with that `expected_count`: if more prompts match by then, it is
        409, and nothing has changed. The prompts are chosen at once; workers change them, each once, in groups.

        A retry keeps the prompts' API keys. Their users' budgets and USER_RUNNING_LIMIT apply, and users take turns as
        always; rate limits and USER_BACKLOG_LIMIT do not.
        """
        wanted, shown = body.filter.filter(), body.filter.as_json()
        if wanted.status is not None and wanted.status not in STATUSES[body.action]:
            names = " or ".join(STATUSES[body.action])
            abort(problems.invalid_field("filter.status", f"must be {names} to {body.action} prompts"))
        if body.dry_run:
            with self._sessions.begin() as session:
                counts = operations.count(session, body.action, wanted)
            return jsonify(schemas.operation_count(body.action, shown, counts))
        if body.expected_count is None:
            abort(problems.invalid_field("expected_count", "is required, unless dry_run is true"))
        with self._sessions.begin() as session:
            operation_id = operations.begin(
                session, body.action, wanted, shown, current_actor(), expected=body.expected_count
            )
        response = self._show(operation_id, HTTPStatus.ACCEPTED)
        set_location(response, f"/admin/operations/{operation_id}/")
        return response

    def operations(self, query: OperationsQuery) -> Response:
        """List operations, the newest first."""
        with self._engine.connect() as connection:
            found = operations.list_all(connection, limit=query.limit + 1, before=decode_before(query.cursor) or MAX_ID)
        return older_page("/admin/operations/", [schemas.admin_operation(each) for each in found], query.limit)

    def operation(self, path: OperationPath) -> Response:
        """Get an operation and its progress."""
        return self._show(path.operation_id)

    def undo(self, path: OperationPath) -> Response:
        """Stop an operation, and undo retries that have not started.

        No more prompts are changed. Retried prompts that no worker has started since are as before. Cancelled prompts
        stay cancelled: retry them with the filter `{"status": "cancelled", "operation": ID}`.
        """
        with self._sessions.begin() as session:
            operations.undo(session, path.operation_id, current_actor())
        return self._show(path.operation_id, HTTPStatus.ACCEPTED)

    def workers(self) -> Response:
        """List the worker hosts of the last ten minutes."""
        with self._engine.connect() as connection:
            return jsonify([schemas.worker_host(host) for host in worker_hosts.list_all(connection)])

    def models(self) -> Response:
        """List the models, and whether they are paused or their providers unavailable."""
        with self._engine.connect() as connection:
            return jsonify([provider(state) for state in self._states(connection)])

    def pause(self, path: ModelPath, body: PauseBody) -> Response:
        """Pause a model: none of its prompts is started until it is resumed.

        Prompts can be submitted, keep their turns, and show why they wait. Those that are being answered go on. The
        pause survives restarts. If the model is paused already, the reason is replaced.
        """
        self._check_model(path.model)
        with self._sessions.begin() as session:
            model_pause.pause(session, path.model, current_principal().id, body.reason)
            audit.record(session, current_actor(), "model.paused", None, model=path.model, reason=body.reason)
        return self._state(path.model)

    def resume(self, path: ModelPath) -> Response:
        """Resume a paused model."""
        self._check_model(path.model)
        with self._sessions.begin() as session:
            if was_paused := model_pause.resume(session, path.model):
                audit.record(session, current_actor(), "model.resumed", None, model=path.model)
        if was_paused and path.model in self._ceilings:
            with self._engine.connect() as connection:
                ready = concurrency.count_ready(
                    connection, path.model, ceiling=self._ceilings[path.model], limit=MAX_PROMPTS_PER_MESSAGE
                )
            self._queue.wake(path.model, ready)
        return self._state(path.model)

    def _check_model(self, model: str) -> None:
        """Raise ModelNotFoundError if the model is neither configured nor was ever used."""
        with self._engine.connect() as connection:
            if model not in {state.model for state in self._states(connection)}:
                raise ModelNotFoundError("There is no such model.")

    def _states(self, connection: Any) -> list[ProviderState]:
        """The states of all models, by name, also of those that were never used."""
        states = {state.model: state for state in overview.providers(connection)}
        unused = {model: overview.unused(model) for model in self._ceilings}
        return [state for _, state in sorted((unused | states).items())]

    def _state(self, model: str) -> Response:
        with self._engine.connect() as connection:
            return jsonify(next(provider(state) for state in self._states(connection) if state.model == model))

    def _show(self, operation_id: int, status: HTTPStatus = HTTPStatus.OK) -> Response:
        with self._engine.connect() as connection:
            response = jsonify(schemas.admin_operation(operations.get(connection, operation_id)))
        response.status_code = status
        return response
