"""Whether this process works, and what it needs."""

from http import HTTPStatus
from typing import cast

from flask import Response, current_app, jsonify
from flask_openapi3 import APIBlueprint, OpenAPI, Tag
from sqlalchemy.exc import SQLAlchemyError

from api.schemas import Health
from api.services import services
from shared import migrations

bp = APIBlueprint("ops", __name__, abp_tags=[Tag(name="Operations")])


@bp.get("/livez/", responses={200: Health})
def livez() -> Response:
    """Whether this process runs."""
    return jsonify({"status": "ok", "checks": {}})


@bp.get("/readyz/", responses={200: Health, 503: Health})
def readyz() -> tuple[Response, int]:
    """Whether this process can serve: not without Postgres and its migrations; degraded without Redis."""
    checks = {"postgres": _postgres(), "redis": "ok" if services().queue.length() is not None else "away"}
    if checks["postgres"] != "ok":
        status, code = "unavailable", HTTPStatus.SERVICE_UNAVAILABLE
    else:
        status, code = ("ok" if checks["redis"] == "ok" else "degraded"), HTTPStatus.OK
    return jsonify({"status": status, "checks": checks}), code


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
