"""Search of the caller's completed prompts by meaning."""

import time
from functools import partial

from flask import Response, jsonify
from flask_openapi3 import Tag
from sqlalchemy import Engine

from api.auth.tokens import Authenticator, current_principal
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import Responses, error_responses, json_response
from api.http.schemas import SimilarPrompt, SimilarQuery, similar_prompt
from api.server.threadpool import offload
from shared.errors import ProviderUnavailableError
from shared.prompts import queries
from shared.providers import Embedder, Vectors, embed
from shared.search.store import VectorStore, run_inline
from shared.telemetry import metrics, tracing

SIMILAR: Responses = {200: json_response([SimilarPrompt], "Prompts, nearest first.", "similar", "none")}


class SearchRoutes:
    """The view of similar prompts."""

    def __init__(self, authenticator: Authenticator, store: VectorStore, engine: Engine) -> None:
        self._authenticator = authenticator
        self._store = store
        self._engine = engine

    def blueprint(self) -> Blueprint:
        bp = Blueprint(
            "search",
            __name__,
            url_prefix="/prompts",
            abp_tags=[Tag(name="Search", description="Finding one's own prompts again by meaning.")],
            abp_security=[{"bearer": []}],
            abp_responses=error_responses(
                400, 401, 414, 500, 503, ProviderUnavailableError("The embedder cannot be reached.")
            ),
        )
        bp.before_request(self._authenticator.authenticate_request)
        bp.get("/similar/", operation_id="findSimilarPrompts", responses=SIMILAR)(self.similar)
        return bp

    def similar(self, query: SimilarQuery) -> Response:
        """Find the caller's completed prompts that are most similar to a text, nearest first.

        All results are the caller's, however many prompts other users have. A prompt that a client has seen `completed`
        is found by its next search.
        """
        principal = current_principal()
        started = time.perf_counter()
        with tracing.spans("search", tracing.current_traceparent()):
            matches = self._store.search(principal.id, partial(_embed, query.prompt), query.limit).matches
        metrics.searches.observe(time.perf_counter() - started)
        if query.max_score is not None:
            matches = [match for match in matches if match.distance <= query.max_score]
        with self._engine.connect() as connection:
            prompts = queries.completed(connection, principal.id, [match.prompt_id for match in matches])
        return jsonify(
            [
                similar_prompt(prompts[match.prompt_id], principal.username, match.distance)
                for match in matches
                if match.prompt_id in prompts  # unless it was deleted since the search
            ]
        )


def _embed(text: str, embedder: Embedder) -> Vectors:
    # A remote embedder yields to other greenlets by itself, and its connections belong to this thread.
    run = run_inline if embedder.is_remote else offload
    vector: Vectors = run(embed, embedder, [text])[0]
    return vector
