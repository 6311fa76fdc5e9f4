"""Embedding claimed prompts. If the embedder fails for a prompt, the prompt is answered, and its vector backfilled."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from shared.prompts.claims import Claim
from shared.providers import Embedder, Embedders, Vectors
from shared.providers.embed_each import EmbedderOutageError, concerns_all_texts, embed_each
from shared.search.vector_backfill import log_refusal
from shared.telemetry import tracing
from worker.embedder_pause import EmbedderPause


class EmbeddedPrompt(NamedTuple):
    """A claimed prompt and its vector, shape (dimension,), by this embedder; None if the embedder failed."""

    claim: Claim
    embedder: Embedder
    vector: Vectors | None


def embed_claims(embedders: Embedders, pause: EmbedderPause, claims: Sequence[Claim]) -> list[EmbeddedPrompt]:
    """The prompts with their vectors, in the order of their embedders' names.

    Each gets a vector of the embedder whose vectors its user's searches compare, with one call for each embedder if
    none of the texts makes it fail.

    Raises:
        SoftTimeLimitExceeded: the task was interrupted; so may any reason of an `Interruption`.
    """
    resolved = [(embedders.resolve(claim.embedder), claim) for claim in claims]
    embedded = []
    for _, group in groupby(sorted(resolved, key=lambda each: each[0].name), key=lambda each: each[0].name):
        members = list(group)
        embedder, held = members[0][0], [claim for _, claim in members]
        with tracing.spans("embed", *(claim.traceparent for claim in held), embedder=embedder.name):
            vectors = _embed(embedder, pause, held)
        embedded += [EmbeddedPrompt(claim, embedder, vector) for claim, vector in zip(held, vectors, strict=True)]
    return embedded


def _embed(embedder: Embedder, pause: EmbedderPause, claims: Sequence[Claim]) -> list[Vectors | None]:
    started_at = pause.try_call(embedder)
    if started_at is None:
        return [None] * len(claims)
    try:
        results = embed_each(embedder, [claim.prompt_text for claim in claims], concerns_all_texts)
    except EmbedderOutageError as error:
        pause.record_failure(embedder, started_at, error.cause)
        return [None] * len(claims)
    pause.record_success(embedder)
    vectors: list[Vectors | None] = []
    for claim, result in zip(claims, results, strict=True):
        if isinstance(result, Exception):
            log_refusal(claim.id, result)
            vectors.append(None)
        else:
            vectors.append(result.astype("<f4"))
    return vectors
