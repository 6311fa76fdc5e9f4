"""Embedding texts for requests, without holding up those of others."""

from collections.abc import Sequence
from functools import partial

import structlog

from shared.errors import ProviderError
from shared.providers import Embedder, Vectors, embed
from shared.search.store import Offload, run_inline

log = structlog.get_logger(__name__)


def embed_offloaded(offload: Offload, embedder: Embedder, texts: Sequence[str], *, failed: str) -> Vectors:
    """Embed texts as `shared.providers.embed` does, on another thread if the embedder computes here.

    Args:
        failed: The message of the error if the embedder raises anything but a ProviderError.

    Raises:
        ProviderError: the embedder failed.
    """
    # A remote embedder yields to other greenlets by itself, and its connections belong to this thread.
    run = run_inline if embedder.is_remote else offload
    try:
        vectors: Vectors = run(partial(embed, embedder), texts)
    except ProviderError:
        raise
    except Exception as error:  # custom embedders may raise anything
        log.exception("embedder failed", embedder=embedder.name)
        raise ProviderError(failed) from error
    return vectors
