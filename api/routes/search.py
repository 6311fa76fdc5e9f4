"""Search of the caller's completed prompts by meaning."""

import time
from functools import partial

from flask import Response
from flask_openapi3 import Tag
from sqlalchemy import Engine

from api.auth.tokens import Authenticator, current_principal
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import TOO_MANY_SEARCHES, Responses, error_responses, json_response
from api.http.pages import add_next_link, decode_cursor, encode_cursor, json_page
from api.http.request_schemas import SimilarQuery
from api.http.response_schemas import SimilarPrompt, similar_prompt
from api.intake.user_slots import UserSlots
from shared.errors import ProviderUnavailableError
from shared.prompts import queries
from shared.providers import Embedder, Vectors, embed
from shared.search.store import Match, Offload, VectorStore, run_inline
from shared.telemetry import metrics, tracing

SIMILAR: Responses = {
    200: json_response([SimilarPrompt], "Prompts, nearest first.", "similar", "none", headers=("Link",)),
    **error_responses(TOO_MANY_SEARCHES),
}


class SearchRoutes:
    """The view of similar prompts.

    Args:
        slots: Limits the searches of a user at the same time.
        offload: Runs an embedder that computes here.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        store: VectorStore,
        engine: Engine,
        *,
        slots: UserSlots,
        offload: Offload,
        max_page_bytes: int,
    ) -> None:
        self._authenticator = authenticator
        self._store = store
        self._engine = engine
        self._slots = slots
        self._offload = offload
        self._max_page_bytes = max_page_bytes

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
        is found by its next search. If the results are large, the `Link` header leads to the rest of them.
        """
        principal = current_principal()
        skipped = 0 if query.cursor is None else decode_cursor("rank", query.cursor, highest=query.limit)
        with self._slots.hold(principal.id):
            distances = dict(self._search(principal.id, query)[skipped:])
            with self._engine.connect() as connection:
                prompts, has_more = queries.ranked(
                    connection, principal.id, list(distances), max_bytes=self._max_page_bytes
                )
            found = (similar_prompt(prompt, principal.username, distances[prompt.id]) for prompt in prompts)
            response, count = json_page(found, self._max_page_bytes)
        if has_more or count < len(prompts):
            rank = skipped + list(distances).index(prompts[count - 1].id) + 1
            parameters = query.model_dump(exclude={"cursor"}) | {"cursor": encode_cursor("rank", rank)}
            add_next_link(response, "/prompts/similar/", **parameters)
        return response

    def _search(self, user_id: int, query: SimilarQuery) -> list[Match]:
        started = time.perf_counter()
        with tracing.spans("search", tracing.current_traceparent()):
            matches = self._store.search(user_id, partial(self._embed, query.prompt), query.limit).matches
        metrics.searches.observe(time.perf_counter() - started)
        max_score = query.max_score
        return [match for match in matches if max_score is None or match.distance <= max_score]

    def _embed(self, text: str, embedder: Embedder) -> Vectors:
        # A remote embedder yields to other greenlets by itself, and its connections belong to this thread.
        run = run_inline if embedder.is_remote else self._offload
        vector: Vectors = run(embed, embedder, [text])[0]
        return vector
