"""Making the prompts that requests ask for, whichever API they use."""

from typing import Any

from api.auth.principal import Principal
from api.http.requests import request_id
from shared.errors import ContextTooLongError, NotSupportedError, UnknownModelError
from shared.prompts.submission import NewPrompt
from shared.providers import GenerationRequest
from shared.providers.factory import capabilities
from shared.providers.model_request import TEXT_ONLY, Capability, ModelRequest
from shared.providers.tokens import estimate_tokens
from shared.settings import Settings
from shared.telemetry import tracing


class NewPrompts:
    """Makes prompts for the model routes of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._models = settings.models
        self._capabilities: dict[str, frozenset[Capability]] = {}

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
        route = self.check(model, asked, prompt_text)
        return NewPrompt(
            user_id=principal.id,
            prompt_text=prompt_text,
            request_id=request_id(),
            traceparent=tracing.current_traceparent(),
            key_id=None if principal.key is None else principal.key.id,
            route=route,
            request=asked.to_json(),
            request_hash=asked.hash,
            **columns,
        )

    def check(self, model: str | None, asked: ModelRequest, prompt_text: str = "") -> str:
        """The model route, if its generator can do what is asked. Raises as `make` does."""
        route = next(iter(self._models)) if model is None else model
        if route not in self._models:
            known = ", ".join(self._models)
            raise UnknownModelError(f"There is no model {route}. Known models: {known}.", ["model"])
        if (needs := asked.needs) and (missing := needs - self._capable(route)):
            listed = ", ".join(sorted(missing))
            raise NotSupportedError(f"The model {route} does not support: {listed}.", missing)
        if self._models[route].context_tokens is not None:
            self._check_context(route, asked, prompt_text)
        return route

    def _check_context(self, route: str, asked: ModelRequest, prompt_text: str) -> None:
        """Refuse what the model could not read as a whole, by an estimate. Earlier exchanges are added later."""
        settings = self._models[route]
        texts = [settings.openai_system_prompt, *GenerationRequest(prompt_text, asked=asked).texts]
        read = sum(estimate_tokens(text) for text in texts if text)
        written = asked.max_output_tokens or settings.openai_max_tokens or 0
        limit = settings.context_tokens
        if limit is not None and read + written > limit:
            fields = ["messages"] if asked.messages or asked.input else ["prompt_text"]
            needed = f"about {read} tokens" + (f" and up to {written} for the answer" if written else "")
            raise ContextTooLongError(
                f"The request needs {needed}, and the model {route} takes {limit} (context_tokens).", fields
            )

    def _capable(self, route: str) -> frozenset[Capability]:
        if route not in self._capabilities:
            self._capabilities[route] = capabilities(self._models[route])
        return self._capabilities[route]
