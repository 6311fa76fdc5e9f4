"""A prompt as JSON: the resource of the API, which webhooks get, too. `PromptResource` describes it."""

from typing import Any

from shared import timestamps
from shared.prompts.provider_pause import Waiting
from shared.prompts.queries import PromptRow


def prompt_resource(prompt: PromptRow, username: str) -> dict[str, Any]:
    """Render a prompt."""
    return {
        "id": prompt.id,
        "user": username,
        "prompt_text": prompt.prompt_text,
        "response_text": prompt.answer.response_text,
        "status": prompt.status,
        "websocket": prompt.websocket,
        "attempt": prompt.attempt,
        "error": prompt.error,
        "history": prompt.history,
        "priority": prompt.priority,
        "metadata": prompt.metadata or {},
        "position": prompt.position,
        "waiting_for": prompt.waiting_for and _waiting(prompt.waiting_for),
        "model": prompt.route,
        **prompt.answer.details(),
        "created_at": timestamps.rfc3339(prompt.created_at),
        "completed_at": timestamps.rfc3339_or_none(prompt.completed_at),
        "emptied_at": timestamps.rfc3339_or_none(prompt.emptied_at),
    }


def _waiting(waiting: Waiting) -> dict[str, Any]:
    return waiting._asdict() | {"next_attempt_at": timestamps.rfc3339_or_none(waiting.next_attempt_at)}
