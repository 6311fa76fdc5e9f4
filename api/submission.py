"""Storing a submitted prompt, once, and queueing it."""

from api.schemas import Submission
from api.services import Services
from shared import idempotency, library, prompts
from shared.models import Prompt


def store(services: Services, user_id: int, body: Submission, key: str | None, request_id: str) -> tuple[Prompt, bool]:
    """Stores and queues the prompt, unless its idempotency key was used before.

    Returns:
        The prompt, and whether it is the one of an earlier request. A replay does not count against the limits.

    Raises:
        IdempotencyKeyInUseError, IdempotencyKeyReusedError: see `shared/idempotency.py`.
        PromptNotFoundError: the prompt that the key made has been deleted.
        RateLimitExceeded: the user has submitted too much lately.
    """
    settings = services.settings
    fingerprint = idempotency.fingerprint(body.model_dump_json())
    with services.sessions.begin() as session:
        if key is not None:
            known = idempotency.reserve(session, user_id, key, fingerprint)
            if known is not None:
                return library.get(session, user_id, known), True
        services.limits.submission()
        prompt = prompts.submit(
            session,
            user_id,
            body.prompt_text,
            websocket=body.websocket,
            request_id=request_id,
            grace=settings.submit_grace,
            attempt_limit=settings.max_attempts,
        )
        if key is not None:
            idempotency.remember(session, user_id, key, fingerprint, prompt.id)
    hand_out(services, prompt.id)
    return prompt, False


def hand_out(services: Services, prompt_id: int) -> None:
    """Queues a stored prompt; if the broker is away, the reaper does as soon as it is back."""
    if not services.queue.enqueue([prompt_id]):
        with services.sessions.begin() as session:
            prompts.make_due(session, prompt_id)
