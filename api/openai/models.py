"""The models that a caller may use: the model routes, then the embedder."""

from flask import Response, jsonify
from flask_openapi3 import Tag
from pydantic import Field

from api.auth.api_keys import check_model
from api.auth.principal import Principal, current_principal
from api.auth.tokens import Authenticator
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.models import Parameters, example
from api.http.openapi.responses import Responses, json_response
from api.openai.blueprint import openai_blueprint, openai_error_responses
from api.openai.schemas import Model, ModelList
from shared.errors import ModelNotFoundError, NotAllowedError

_OWNER = "promptwire"
SHOW: Responses = {
    200: json_response(Model, "The model.", "model"),
    **openai_error_responses(ModelNotFoundError()),
}


class ModelPath(Parameters):
    model_id: str = Field(description="The model's `id`, with all its slashes.", json_schema_extra=example("default"))


class ModelRoutes:
    """Views of models. A key that is restricted to some model routes sees those alone."""

    def __init__(self, authenticator: Authenticator, *, routes: list[str], embedder: str) -> None:
        self._authenticator = authenticator
        self._routes = routes
        self._embedder = embedder

    def blueprint(self) -> Blueprint:
        bp = openai_blueprint("openai_models", __name__, self._authenticator, Tag(name="OpenAI"))
        listed: Responses = {200: json_response(ModelList, "The models.", "models")}
        bp.get("/models", operation_id="listModels", responses=listed)(self.index)
        bp.get("/models/<path:model_id>", operation_id="getModel", responses=SHOW)(self.show)
        return bp

    def index(self) -> Response:
        """List the models that the caller may use: the model routes, the default one first, then the embedder."""
        return jsonify({"object": "list", "data": [_model(name) for name in self._names()]})

    def show(self, path: ModelPath) -> Response:
        """Get a model."""
        name = path.model_id.removesuffix("/")
        if name not in self._names():
            raise ModelNotFoundError
        return jsonify(_model(name))

    def _names(self) -> list[str]:
        caller = current_principal()
        return [*(route for route in self._routes if _may_use(caller, route)), self._embedder]


def _may_use(caller: Principal, route: str) -> bool:
    try:
        check_model(caller.key, route)
    except NotAllowedError:
        return False
    return True


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": _OWNER}
