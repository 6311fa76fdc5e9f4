"""Choosing the model route of a prompt, by what its generator can do."""

from collections.abc import Mapping

from shared.errors import ContextTooLongError, NotSupportedError, UnknownModelError
from shared.providers import GenerationRequest
from shared.providers.factory import capabilities
from shared.providers.model_request import Capability, ModelRequest
from shared.providers.tokens import estimate_tokens
from shared.settings import Settings


class ModelChoice:
    """The model routes of the settings, by name, the default one first."""

    def __init__(self, models: Mapping[str, Settings]) -> None:
        self._models = models
        self._capabilities: dict[str, frozenset[Capability]] = {}

    def check(self, model: str | None, asked: ModelRequest, prompt_text: str) -> str:
        """The model route, if its generator can do what is asked.

        Args:
            model: Its name; None for the default one.

        Raises:
            UnknownModelError: there is no such route.
            NotSupportedError: its generator cannot do what is asked.
            ContextTooLongError: it is more than the model can read.
        """
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
