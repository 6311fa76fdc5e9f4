"""Whether this process works, and what it needs."""

from http import HTTPStatus
from typing import cast

from flask import Response, current_app, jsonify, request
from flask_openapi3 import APIBlueprint, OpenAPI, Tag
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import Forbidden, Unauthorized

from api.http.openapi.responses import answer, problem_responses
from api.http.schemas import Health
from api.services import services
from shared.db import migrations
from shared.telemetry import exposition
from shared.telemetry.exposition import MetricsAccessError
from shared.version import get_version

bp = APIBlueprint(
    "ops",
    __name__,
    abp_tags=[Tag(name="Operations", description="For whoever runs the service. No token is needed.")],
    abp_responses=problem_responses(500),
)


@bp.get("/livez/", operation_id="isAlive", responses={200: answer(Health, "It runs.", "alive")})
def livez() -> Response:
    """Whether this process runs."""
    return jsonify({"status": "ok", "version": get_version(), "checks": {}})


@bp.get(
    "/readyz/",
    operation_id="isReady",
    responses={
        200: answer(Health, "It can serve: all is well, or only Redis is away.", "ready", "degraded"),
        503: answer(Health, "It cannot.", "unready", "unmigrated"),
    },
)
def readyz() -> tuple[Response, int]:
    """Whether this process can serve: not without Postgres and its migrations.

    Without Redis it is `degraded`: prompts are accepted, and answered once Redis is back.
    """
    checks = {"postgres": _postgres(), "redis": "ok" if services().queue.length() is not None else "away"}
    if checks["postgres"] != "ok":
        status, code = "unavailable", HTTPStatus.SERVICE_UNAVAILABLE
    else:
        status, code = ("ok" if checks["redis"] == "ok" else "degraded"), HTTPStatus.OK
    return jsonify({"status": status, "version": get_version(), "checks": checks}), code


_METRICS = {
    "description": "In Prometheus's text format, or OpenMetrics', as `Accept` has it.",
    "content": {
        "text/plain": {
            "schema": {"type": "string"},
            "example": "# TYPE promptwire_queue_depth gauge\npromptwire_queue_depth 3.0\n",
        }
    },
}


@bp.get("/metrics/", operation_id="getMetrics", responses={200: _METRICS, **problem_responses(401, 403)})
def metrics() -> Response:
    """What the processes of this host have counted, for Prometheus."""
    try:
        exposition.admit(services().settings, request.remote_addr, request.headers.get("Authorization"))
    except MetricsAccessError as error:
        raise (Unauthorized if error.needs_token else Forbidden)(str(error)) from error
    rendered = exposition.render(request.headers.get("Accept", ""), services().service_metrics)
    return Response(rendered.body, content_type=rendered.content_type)


@bp.get("/openapi.json", doc_ui=False)
def openapi() -> Response:
    """This API, described in OpenAPI 3.1."""
    return jsonify(cast(OpenAPI, current_app).api_doc)


def _postgres() -> str:
    try:
        with services().sessions() as session:
            return "ok" if migrations.is_current(session.connection()) else "not migrated"
    except SQLAlchemyError:
        return "away"
