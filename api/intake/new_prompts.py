"""Making the prompts that requests ask for, whichever API they use."""

from typing import Any

from api.auth.principal import Principal
from api.http.requests import request_id
from shared.db.models import CacheUse
from shared.openai.parsed import ParsedRequest
from shared.prompts.model_choice import ModelChoice
from shared.prompts.submission import NewPrompt
from shared.providers.model_request import TEXT_ONLY, ModelRequest
from shared.settings import Settings
from shared.telemetry import tracing


class NewPrompts:
    """Makes prompts for the model routes of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._choice = ModelChoice(settings.models)
        self._cache = CacheUse.ALLOWED if settings.semantic_cache else None

    def make(
        self,
        principal: Principal,
        prompt_text: str,
        *,
        model: str | None = None,
        asked: ModelRequest = TEXT_ONLY,
        **columns: Any,
    ) -> NewPrompt:
        """The prompt of this caller.

        Args:
            model: A model route; None for the default one.
            columns: Other fields of the prompt.

        Raises:
            UnknownModelError: there is no such route.
            NotSupportedError: its generator cannot do what is asked.
            ContextTooLongError: it is longer than the model's context.
        """
        route = self._choice.check(model, asked, prompt_text)
        return NewPrompt(
            user_id=principal.id,
            prompt_text=prompt_text,
            request_id=request_id(),
            traceparent=tracing.current_traceparent(),
            key_id=None if principal.key is None else principal.key.id,
            route=route,
            request=asked.stored,
            request_hash=asked.hash,
            **columns,
        )

    def from_openai(self, principal: Principal, parsed: ParsedRequest) -> NewPrompt:
        """The prompt of a request to OpenAI's API. Raises as `make` does."""
        return self.make(
            principal,
            parsed.prompt_text,
            model=parsed.model,
            asked=parsed.asked,
            websocket=True,
            cache=self._cache,
            metadata=parsed.metadata,
            api=parsed.api,
            api_request=parsed.api_request,
        )
