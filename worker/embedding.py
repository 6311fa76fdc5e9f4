"""Embedding claimed prompts."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from celery.exceptions import SoftTimeLimitExceeded

from shared.errors import ProviderError
from shared.prompts.claims import Claim
from shared.providers import Embedder, Embedders, Vectors, embed
from shared.telemetry import tracing


class EmbeddedPrompt(NamedTuple):
    """A claimed prompt and its vector, shape (dimension,), by this embedder."""

    claim: Claim
    embedder: Embedder
    vector: Vectors


def embed_claims(embedders: Embedders, claims: Sequence[Claim]) -> list[EmbeddedPrompt]:
    """The prompts with their vectors, in the order of their embedders' names.

    Each gets a vector of the embedder whose vectors its user's searches compare, with one call for each embedder.

    Raises:
        ProviderError: an embedder failed.
    """
    resolved = [(embedders.resolve(claim.embedder), claim) for claim in claims]
    embedded = []
    for _, group in groupby(sorted(resolved, key=lambda each: each[0].name), key=lambda each: each[0].name):
        members = list(group)
        embedder = members[0][0]
        texts = [claim.prompt_text for _, claim in members]
        with tracing.spans("embed", *(claim.traceparent for _, claim in members), embedder=embedder.name):
            vectors = embed(embedder, texts).astype("<f4")
        embedded += [
            EmbeddedPrompt(claim, embedder, vector) for (_, claim), vector in zip(members, vectors, strict=True)
        ]
    return embedded


def may_be_one_prompts_fault(error: Exception) -> bool:
    """Whether one of several prompts may have made their embedder fail, so that each is worth a call of its own."""
    if isinstance(error, ProviderError):
        return not error.retryable
    return not isinstance(error, SoftTimeLimitExceeded)
