"""Choosing the model route of a prompt, by what its generator can do."""

from collections.abc import Mapping

from shared.errors import NotSupportedError, UnknownModelError
from shared.providers.factory import capabilities
from shared.providers.model_request import Capability, ModelRequest
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
        """
        route = next(iter(self._models)) if model is None else model
        if route not in self._models:
            known = ", ".join(self._models)
            raise UnknownModelError(f"There is no model {route}. Known models: {known}.", ["model"])
        if (needs := asked.needs) and (missing := needs - self._capable(route)):
            listed = ", ".join(sorted(missing))
            raise NotSupportedError(f"The model {route} does not support: {listed}.", missing)
        return route

    def _capable(self, route: str) -> frozenset[Capability]:
        if route not in self._capabilities:
            self._capabilities[route] = capabilities(self._models[route])
        return self._capabilities[route]
