"""Finding one's own completed prompts by meaning."""

from functools import partial

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag

from api import tokens
from api.offload import offload
from api.schemas import SimilarPrompts, SimilarQuery, problems, similar_prompt
from api.services import services
from shared import library
from shared.providers import Embedder, Vectors, embed

bp = APIBlueprint(
    "search",
    __name__,
    url_prefix="/prompts",
    abp_tags=[Tag(name="Search")],
    abp_security=[{"bearer": []}],
    abp_responses=problems(400, 401, 500, 503),
)
bp.before_request(tokens.authenticate)


def _embed(text: str, embedder: Embedder) -> Vectors:
    vector: Vectors = offload(embed, embedder, [text])[0]
    return vector


@bp.get("/similar/", responses={200: SimilarPrompts})
def similar(query: SimilarQuery) -> Response:
    """The caller's completed prompts that are most like a text, nearest first."""
    caller = tokens.current()
    matches = services().store.search(caller.id, partial(_embed, query.prompt), query.limit)
    if query.max_score is not None:
        matches = [match for match in matches if match.distance <= query.max_score]
    with services().autocommit.connect() as connection:
        found = library.completed(connection, caller.id, [match.prompt_id for match in matches])
    return jsonify(
        [
            similar_prompt(found[match.prompt_id], caller.username, match.distance)
            for match in matches
            if match.prompt_id in found  # one that was deleted since the search is left out
        ]
    )
