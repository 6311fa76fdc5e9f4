"""Finding one's own completed prompts by meaning."""

import time
from functools import partial

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag

from api.auth import tokens
from api.http.openapi.responses import answer, problem_responses
from api.http.schemas import SimilarPrompt, SimilarQuery, similar_prompt
from api.server.threadpool import offload
from api.services import services
from shared.errors import ProviderUnavailableError
from shared.prompts import queries
from shared.providers import Embedder, Vectors, embed
from shared.search.store import run_inline
from shared.telemetry import metrics, tracing

bp = APIBlueprint(
    "search",
    __name__,
    url_prefix="/prompts",
    abp_tags=[Tag(name="Search", description="Finding one's own prompts again by meaning.")],
    abp_security=[{"bearer": []}],
    abp_responses=problem_responses(
        400, 401, 414, 500, 503, ProviderUnavailableError("The embedder cannot be reached.")
    ),
)
bp.before_request(tokens.authenticate)


def _embed(text: str, embedder: Embedder) -> Vectors:
    # A remote embedder yields to other greenlets while it waits, and its connections belong to this thread.
    run = run_inline if embedder.is_remote else offload
    vector: Vectors = run(embed, embedder, [text])[0]
    return vector


@bp.get(
    "/similar/",
    operation_id="findSimilarPrompts",
    responses={200: answer([SimilarPrompt], "Prompts, nearest first.", "similar", "none")},
)
def similar(query: SimilarQuery) -> Response:
    """The caller's completed prompts that are most like a text, nearest first.

    However many prompts other users have, these are all the caller's. A prompt that a client has seen `completed` is
    found by its next search.
    """
    caller = tokens.current()
    begun = time.perf_counter()
    with tracing.spans("search", tracing.current()):
        matches = services().store.search(caller.id, partial(_embed, query.prompt), query.limit).matches
    metrics.searches.add(time.perf_counter() - begun)
    if query.max_score is not None:
        matches = [match for match in matches if match.distance <= query.max_score]
    with services().autocommit_engine.connect() as connection:
        found = queries.completed(connection, caller.id, [match.prompt_id for match in matches])
    return jsonify(
        [
            similar_prompt(found[match.prompt_id], caller.username, match.distance)
            for match in matches
            if match.prompt_id in found  # one that was deleted since the search is left out
        ]
    )
