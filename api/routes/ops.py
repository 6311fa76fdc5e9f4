"""Health checks, metrics and the OpenAPI document."""

from http import HTTPStatus
from typing import cast

from flask import Response, current_app, jsonify, request
from flask_openapi3 import OpenAPI, Tag
from werkzeug.exceptions import Forbidden, Unauthorized

from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import Responses, error_responses, json_response
from api.http.service_schemas import Health
from api.server.dependency_checks import OK, DependencyChecks
from shared.settings import Settings
from shared.telemetry import exposition
from shared.telemetry.exposition import MetricsAccessError
from shared.telemetry.service_metrics import ServiceMetrics
from shared.version import get_version

LIVEZ: Responses = {200: json_response(Health, "The process runs.", "alive")}
READYZ: Responses = {
    200: json_response(Health, "It can serve: everything works, or only Redis is unavailable.", "ready", "degraded"),
    503: json_response(Health, "It cannot serve.", "unready", "unmigrated"),
}
METRICS: Responses = {
    200: {
        "description": "In Prometheus's text format or, if `Accept` asks for it, OpenMetrics'.",
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": "# TYPE promptwire_queue_depth gauge\npromptwire_queue_depth 3.0\n",
            }
        },
    },
    **error_responses(401, 403),
}


class OpsRoutes:
    """Views for operators."""

    def __init__(self, settings: Settings, checks: DependencyChecks, service_metrics: ServiceMetrics) -> None:
        self._settings = settings
        self._checks = checks
        self._service_metrics = service_metrics

    def blueprint(self) -> Blueprint:
        bp = Blueprint(
            "ops",
            __name__,
            abp_tags=[Tag(name="Operations", description="For operators of the service. No token is needed.")],
            abp_responses=error_responses(500),
        )
        bp.get("/livez/", operation_id="isAlive", responses=LIVEZ)(self.livez)
        bp.get("/readyz/", operation_id="isReady", responses=READYZ)(self.readyz)
        bp.get("/metrics/", operation_id="getMetrics", responses=METRICS)(self.metrics)
        bp.get("/openapi.json", doc_ui=False)(self.openapi)
        return bp

    def livez(self) -> Response:
        """Check that this process runs."""
        return jsonify({"status": "ok", "version": get_version(), "checks": {}})

    def readyz(self) -> tuple[Response, int]:
        """Check that this process can serve: it needs Postgres, migrated and not read-only.

        Without Redis, or if that accepts no writes, it is `degraded`: prompts are accepted, and answered once Redis is
        available again. The results are up to a second old.
        """
        checks = {"postgres": self._checks.postgres(), "redis": self._checks.redis()}
        if checks["postgres"] != OK:
            status, code = "unavailable", HTTPStatus.SERVICE_UNAVAILABLE
        else:
            status, code = ("ok" if checks["redis"] == OK else "degraded"), HTTPStatus.OK
        return jsonify({"status": status, "version": get_version(), "checks": checks}), code

    def metrics(self) -> Response:
        """The metrics of this host's API processes, for Prometheus."""
        try:
            exposition.check_access(self._settings, request.remote_addr, request.headers.get("Authorization"))
        except MetricsAccessError as error:
            raise (Unauthorized if error.needs_token else Forbidden)(str(error)) from error
        rendered = exposition.render(request.headers.get("Accept", ""), self._service_metrics)
        return Response(rendered.body, content_type=rendered.content_type)

    def openapi(self) -> Response:
        """This API as an OpenAPI 3.1 document."""
        return jsonify(cast(OpenAPI, current_app).api_doc)
