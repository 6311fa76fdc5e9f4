"""A request of OpenAI's API in our terms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.db.models import FrontApi
from shared.providers.model_request import ModelRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRequest:
    """The prompt that a request of OpenAI's API asks for."""

    prompt_text: str  #: what is embedded, searched and shown
    model: str | None  #: a model route; None for the default one
    asked: ModelRequest
    metadata: Mapping[str, str] | None
    api: FrontApi
    #: What else the resource repeats, or how it is rendered.
    api_request: dict[str, Any] | None
