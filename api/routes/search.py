"""Search of the caller's completed prompts, by meaning and by words."""

import time
from functools import partial

import structlog
from flask import Response
from flask_openapi3 import Tag
from sqlalchemy import Engine

from api.auth.permissions import require_prompts
from api.auth.principal import current_principal
from api.auth.tokens import Authenticator
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import TOO_MANY_SEARCHES, Responses, error_responses, json_response
from api.http.pages import add_next_link, decode_cursor, encode_cursor, json_page
from api.http.prompt_schemas import SimilarPrompt, SimilarQuery, similar_prompt
from api.intake.user_slots import UserSlots
from api.server.offloaded_embedding import embed_offloaded
from shared.db.models import Scope
from shared.errors import InsufficientScopeError, InvalidFieldsError, ProviderError, ProviderUnavailableError
from shared.prompts import queries
from shared.providers import Embedder, Vectors
from shared.search.prompt_search import Found, Mode, PromptSearch
from shared.search.store import Offload
from shared.telemetry import metrics, tracing

log = structlog.get_logger(__name__)

_FAILED = "The embedder failed, so nothing can be searched at the moment; try again."

SIMILAR: Responses = {
    200: json_response(
        [SimilarPrompt], "Prompts, nearest first.", "similar", "none", headers=("Link", "Missing-Vectors")
    ),
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
        search: PromptSearch,
        engine: Engine,
        *,
        slots: UserSlots,
        offload: Offload,
        max_page_bytes: int,
    ) -> None:
        self._authenticator = authenticator
        self._search = search
        self._engine = engine
        self._slots = slots
        self._offload = offload
        self._max_page_bytes = max_page_bytes

    def blueprint(self) -> Blueprint:
        bp = Blueprint(
            "search",
            __name__,
            url_prefix="/prompts",
            abp_tags=[Tag(name="Search", description="Finding one's own prompts again, by meaning and by words.")],
            abp_security=[{"bearer": []}],
            abp_responses=error_responses(
                400,
                401,
                InsufficientScopeError(Scope.PROMPTS_READ),
                414,
                500,
                503,
                ProviderUnavailableError("The embedder cannot be reached."),
                ProviderError(_FAILED),
            ),
        )
        bp.before_request(self._authenticator.authenticate_request)
        bp.before_request(require_prompts)
        bp.get("/similar/", operation_id="findSimilarPrompts", responses=SIMILAR)(self.similar)
        return bp

    def similar(self, query: SimilarQuery) -> Response:
        """Find the caller's completed prompts that are most similar to a text, nearest first.

        `mode=text` finds those that have its words, such as names and error codes, in the prompt or in the answer;
        `hybrid` finds both. Filters apply before the nearest are chosen, so there are never fewer results than prompts.

        All results are the caller's, however many prompts other users have. A prompt that a client has seen `completed`
        is found by its next search. If the results are large, the `Link` header leads to the rest of them.

        A prompt that was completed while the embedder failed gets its vector later, at the latest from the next search.
        `Missing-Vectors` is the number of those that even this search could not compare.
        """
        if query.max_score is not None and query.mode != "vector":
            raise InvalidFieldsError("max_score works with mode=vector only.", ["max_score"])
        principal = current_principal()
        skipped = 0 if query.cursor is None else decode_cursor("rank", query.cursor, highest=query.limit)
        with self._slots.hold(principal.id):
            found, missing = self._find(principal.id, query)
            distances = dict(found[skipped:])
            with self._engine.connect() as connection:
                prompts, has_more = queries.ranked(
                    connection, principal.id, list(distances), max_bytes=self._max_page_bytes
                )
            rendered = (similar_prompt(prompt, principal.username, distances[prompt.id]) for prompt in prompts)
            response, count = json_page(rendered, self._max_page_bytes)
        if has_more or count < len(prompts):
            rank = skipped + list(distances).index(prompts[count - 1].id) + 1
            own = query.model_dump(include={"prompt", "mode", "limit", "max_score"})
            cursor = encode_cursor("rank", rank)
            add_next_link(response, "/prompts/similar/", **own, **query.link_parameters(), cursor=cursor)
        if missing:
            response.headers["Missing-Vectors"] = str(missing)
        return response

    def _find(self, user_id: int, query: SimilarQuery) -> tuple[list[Found], int]:
        """The best prompts, and how many could not be compared because they have no vector."""
        started = time.perf_counter()
        embed_query = partial(self._embed, query.prompt)
        with tracing.spans("search", tracing.current_traceparent()):
            found, missing = self._search.search(
                user_id, Mode(query.mode), query.prompt, embed_query, query.limit, query.filter()
            )
        metrics.searches.observe(time.perf_counter() - started)
        if query.max_score is not None:
            found = [each for each in found if each.distance is not None and each.distance <= query.max_score]
        return found, missing

    def _embed(self, text: str, embedder: Embedder) -> Vectors:
        vector: Vectors = embed_offloaded(self._offload, embedder, [text], failed=_FAILED)[0]
        return vector
