"""The document at /openapi.json: what flask-openapi3 collects from the routes, and shared components."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from flask_openapi3 import Info, OpenAPI, Server
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.http.openapi.blueprint import Blueprint
from api.http.openapi.examples import BODIES
from api.http.openapi.models import Answer, Body, Schema
from api.http.openapi.responses import HEADERS, LINKS
from api.http.openapi.webhook_events import EVENTS
from api.http.service_schemas import Problem
from shared.version import get_version

_ABOUT = Path(__file__).with_name("about.md")
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT or API key",
    "description": "The `access` token from `POST /login/`, or an API key (`pw_…`) from `POST /auth/keys/`.",
}
_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "An id for this request, of at most 128 letters, digits and `._:/+=-`; anything else is replaced.",
    "schema": {"type": "string"},
    "example": "checkout-4711",
}


class DescribedApi(OpenAPI):
    """A Flask application that documents its API, whose public paths begin with `prefix`."""

    def __init__(self, import_name: str, prefix: str = "", **options: Any) -> None:
        super().__init__(
            import_name,
            info=Info(
                title="Promptwire",
                version=get_version(),
                summary="Answers prompts in the background, pushes the answers, and finds them again by meaning.",
                description=_ABOUT.read_text("utf-8"),
            ),
            servers=[Server(url=prefix or "/", description="This host")],
            security_schemes={"bearer": _BEARER},
            doc_ui=False,
            # flask-openapi3 adds a response of its own with this status, unless the route has one; all have a 500.
            validation_error_status=500,
            validation_error_model=Problem,
            **options,
        )

    def generate_spec_json(self) -> None:
        for blueprint in self.blueprints.values():
            if isinstance(blueprint, Blueprint):
                self._describe(blueprint)
        super().generate_spec_json()  # type: ignore[no-untyped-call]
        document = self.spec_json
        document["components"] |= {
            "schemas": _schemas(),
            "headers": HEADERS,
            "links": LINKS,
            "parameters": {"X-Request-ID": _REQUEST_ID},
        }
        document["webhooks"] = EVENTS
        for path in document["paths"].values():
            for operation in path.values():
                _complete(operation)

    def _describe(self, blueprint: Blueprint) -> None:
        """Add the blueprint's views to the document, as `register_api` does with one that is described already."""
        blueprint.describe()
        self.tags += [tag for tag in blueprint.tags if tag.name not in self.tag_names]
        self.tag_names += [tag.name for tag in blueprint.tags if tag.name not in self.tag_names]
        self.paths.update(blueprint.paths)
        self.components_schemas.update(blueprint.components_schemas)


def _complete(operation: dict[str, Any]) -> None:
    """Add to an operation what all operations share."""
    # flask-openapi3 joins a docstring's lines with HTML, which is not Markdown.
    operation["summary"] = operation["summary"].removesuffix(".")
    if "description" in operation:
        operation["description"] = operation["description"].replace("<br/>", "\n").strip()
    operation.setdefault("security", [])
    for parameter in operation.setdefault("parameters", []):
        if parameter["schema"].get("type") == "object":
            parameter |= {"style": "deepObject", "explode": True}  # name[key]=value
    operation["parameters"].append({"$ref": "#/components/parameters/X-Request-ID"})
    if "application/json" in operation.get("requestBody", {}).get("content", {}):
        media = operation["requestBody"]["content"]["application/json"]
        _, _, model = media["schema"]["$ref"].rpartition("/")
        media["examples"] = {f"{n}": {"summary": s, "value": v} for n, (s, v) in enumerate(BODIES[model].items(), 1)}


def _subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in model.__subclasses__():
        yield each
        yield from _subclasses(each)


def _schemas() -> dict[str, Any]:
    models: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [
        *((model, "validation") for model in _subclasses(Body)),
        *((model, "serialization") for model in _subclasses(Answer)),
    ]
    _, generated = models_json_schema(models, ref_template="#/components/schemas/{model}", schema_generator=Schema)
    schemas: dict[str, Any] = generated["$defs"]
    return schemas
