"""Embeddings by the configured embedder, the one that searches use."""

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from flask import Response, jsonify
from flask_openapi3 import Tag

from api.auth.principal import current_principal
from api.auth.tokens import Authenticator
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import OVER_BUDGET, TOO_MANY_SEARCHES, Responses, json_response
from api.intake.user_slots import UserSlots
from api.openai.blueprint import openai_blueprint, openai_error_responses
from api.openai.schemas import Embeddings
from api.server.offloaded_embedding import embed_offloaded
from shared.accounts import embedding_usage
from shared.accounts.embedding_usage import EmbeddedTexts
from shared.db.engine import Sessions
from shared.db.models import Scope
from shared.errors import (
    InsufficientScopeError,
    InvalidFieldsError,
    ProviderError,
    ProviderUnavailableError,
    UnknownModelError,
)
from shared.openai.embedding_request import EmbeddingRequest
from shared.providers import Embedder, Vectors
from shared.providers.tokens import estimate_tokens
from shared.search.store import Offload

#: How much is embedded at a time, so that searches of other users get their turns in between.
_BATCH_TEXTS, _BATCH_CHARACTERS = 32, 50_000
_FAILED = "The embedder failed; try again."
CREATE: Responses = {
    200: json_response(Embeddings, "The vectors, in the order of the inputs.", "embeddings", "embeddings-base64"),
    **openai_error_responses(
        *(413, 415, 503, TOO_MANY_SEARCHES, OVER_BUDGET, InsufficientScopeError(Scope.PROMPTS_WRITE)),
        *(ProviderUnavailableError("The embedder cannot be reached."), ProviderError(_FAILED)),
    ),
}


class EmbeddingRoutes:
    """The view of embeddings.

    Args:
        slots: Limits the searches of a user at the same time; these count as searches.
        offload: Runs an embedder that computes here.
        user_budget: USER_MONTHLY_TOKENS.
    """

    def __init__(
        self,
        sessions: Sessions,
        authenticator: Authenticator,
        embedder: Embedder,
        slots: UserSlots,
        offload: Offload,
        *,
        user_budget: int | None,
    ) -> None:
        self._sessions = sessions
        self._user_budget = user_budget
        self._authenticator = authenticator
        self._embedder = embedder
        self._slots = slots
        self._offload = offload

    def blueprint(self) -> Blueprint:
        bp = openai_blueprint("openai_embeddings", __name__, self._authenticator, Tag(name="OpenAI"))
        bp.post("/embeddings", operation_id="createEmbeddings", responses=CREATE)(self.create)
        return bp

    def create(self, body: EmbeddingRequest) -> Response:
        """Turn texts into vectors, by the embedder that searches use. The texts are not stored."""
        self._check(body)
        principal, tokens = current_principal(), sum(map(estimate_tokens, body.texts))
        key_id = None if principal.key is None else principal.key.id
        with (
            self._slots.hold(principal.id),
            self._counted(EmbeddedTexts(principal.id, key_id, self._embedder.name, tokens)),
        ):
            vectors = [self._embed(batch) for batch in _batches(body.texts)]
        encode = _base64 if body.encoding_format == "base64" else _floats
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(np.concatenate(vectors))
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return jsonify({"object": "list", "data": data, "model": self._embedder.name, "usage": usage})

    @contextmanager
    def _counted(self, texts: EmbeddedTexts) -> Iterator[None]:
        """Count the tokens in the usage of the caller, unless the block fails."""
        with self._sessions.begin() as session:
            embedding_usage.add(session, texts, user_budget=self._user_budget)
        try:
            yield
        except BaseException:
            with self._sessions.begin() as session:
                embedding_usage.take_back(session, texts)
            raise

    def _check(self, body: EmbeddingRequest) -> None:
        name, dimension = self._embedder.name, self._embedder.dimension
        if body.model != name:
            raise UnknownModelError(f"There is no embedder {body.model}. The embedder here is {name}.", ["model"])
        if body.dimensions not in (None, dimension):
            raise InvalidFieldsError(f"The vectors of {name} have {dimension} dimensions.", ["dimensions"])

    def _embed(self, texts: Sequence[str]) -> Vectors:
        return embed_offloaded(self._offload, self._embedder, texts, failed=_FAILED)


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        if batch and (len(batch) == _BATCH_TEXTS or sum(map(len, batch)) + len(text) > _BATCH_CHARACTERS):
            yield batch
            batch = []
        batch.append(text)
    yield batch


def _floats(vector: Vectors) -> list[float]:
    numbers: list[float] = vector.tolist()
    return numbers


def _base64(vector: Vectors) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
