"""Which prompt a log line is about."""

from collections.abc import Iterator
from contextlib import contextmanager

from structlog.contextvars import bound_contextvars

from shared.prompts.claims import Claim


@contextmanager
def log_context(claim: Claim) -> Iterator[None]:
    """Add the claim's request, prompt and attempt to everything that is logged within the block."""
    with bound_contextvars(request_id=claim.request_id, prompt_id=claim.id, attempt=claim.attempt):
        yield
