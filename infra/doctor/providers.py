"""Checks of the generator and the embedder: they exist, their endpoints answer, and know the models of the settings."""

import re
import time
from collections.abc import Iterator
from typing import Protocol, cast

from infra.doctor import Finding, Observation, Severity, each_model
from shared.errors import ProviderError, ProviderUnavailableError
from shared.providers import GenerationRequest, embed
from shared.providers.factory import make_embedder, make_generator
from shared.providers.openai_endpoint import Endpoint
from shared.settings import Settings

#: How long an endpoint may take to list its models.
TIMEOUT_SECONDS = 10.0
#: How many models are named.
MAX_NAMED = 10
_QUESTION = "Answer with one word: which planet do we live on?"
#: A server that has no list, or has it elsewhere. Its models may work.
_NO_LIST = re.compile(r"\((404|405|501)\)")


class _Models(Protocol):
    """An endpoint that can be asked for its models."""

    def models(self) -> list[str]:
        """Their names. Raises ProviderError."""


def generator(settings: Settings) -> Iterator[Finding | Observation]:
    """The generator of each model exists and has the settings it needs, and its endpoint knows the model.

    No text is generated: that may cost money.
    """
    return each_model(settings, _generator)


def answer(settings: Settings) -> Iterator[Finding | Observation]:
    """The generator of each model answers a question. Only the beginning of its answer is read."""
    return each_model(settings, _answer)


def _generator(settings: Settings) -> Iterator[Finding | Observation]:
    generator = make_generator(settings)
    if settings.app_env == "prod" and generator.name.startswith("simulated"):
        yield Finding(
            "GENERATOR=simulated does not generate real answers.",
            "Set GENERATOR to a model (docs/models.md).",
            Severity.BEWARE,
        )
    if settings.generator == "openai":
        yield from _check_model(_chat_endpoint(settings), "OPENAI", "OPENAI_MODEL", settings.openai_model.strip())


def _answer(settings: Settings) -> Iterator[Finding | Observation]:
    generator = make_generator(settings)
    started = time.monotonic()
    parts = generator.generate(GenerationRequest(_QUESTION))
    try:
        has_text = any(isinstance(part, str) and part for part in parts)
    except ProviderError as error:
        yield Finding(f"The generator {generator.name} gives no answer: {error}", _remedy(settings.generator, "OPENAI"))
        return
    finally:
        if hasattr(parts, "close"):  # the provider need not go on
            parts.close()
    if not has_text:
        yield Finding(
            f"The generator {generator.name} gives no answer: it ended without any text.",
            "Try another model, or raise its limit of tokens (OPENAI_MAX_TOKENS).",
        )
        return
    yield Observation(f"the first text came after {_seconds_since(started)}")


def embedder(settings: Settings) -> Iterator[Finding | Observation]:
    """The embedder embeds a word."""
    embedder = make_embedder(settings)
    started = time.monotonic()
    try:
        embed(embedder, ["hello"])
    except ProviderError as error:
        prefix = _embedding_prefix(settings)
        yield Finding(f"The embedder {embedder.name} fails: {error}", _remedy(settings.embedder, prefix))
        if settings.embedder == "openai" and not isinstance(error, ProviderUnavailableError):
            model = settings.openai_embedding_model
            yield from _check_model(_embedding_endpoint(settings), prefix, "OPENAI_EMBEDDING_MODEL", model)
        return
    yield Observation(f"one word took {_seconds_since(started)}")


def _check_model(endpoint: _Models, prefix: str, setting: str, model: str) -> Iterator[Finding | Observation]:
    """The endpoint is reachable, accepts the key, and has the model.

    A model that is not in the list is only a warning: some servers list nothing, and some accept any name.
    """
    started = time.monotonic()
    try:
        names = endpoint.models()
    except ProviderError as error:
        has_no_list = bool(_NO_LIST.search(str(error)))
        yield Finding(
            f"The endpoint does not list its models: {error}",
            f"Check that {prefix}_BASE_URL is right; most end in /v1. --deep asks for an answer."
            if has_no_list
            else _remedy("openai", prefix),
            Severity.BEWARE if has_no_list else Severity.WRONG,
        )
        return
    seconds = _seconds_since(started)
    if model in {*names, *(name.removesuffix(":latest") for name in names)}:
        yield Observation(f"the endpoint has {model}; listing its models took {seconds}")
        return
    listed = ", ".join(names[:MAX_NAMED]) + (" …" if len(names) > MAX_NAMED else "")
    yield Finding(
        f"{setting} is {model}, which is not among the models of the endpoint: {listed or 'it lists none'}.",
        f"Set {setting} to one of them, unless the server accepts any name, as llama.cpp's does.",
        Severity.BEWARE,
    )


def _remedy(provider: str, prefix: str) -> str:
    if provider != "openai":
        return "Check its settings, and that it runs."
    return f"Check that the endpoint runs, and {prefix}_BASE_URL and {prefix}_API_KEY."


def _chat_endpoint(settings: Settings) -> _Models:
    key = settings.openai_api_key.get_secret_value()
    return cast(_Models, Endpoint(settings.openai_base_url, key, timeout_seconds=TIMEOUT_SECONDS))


def _embedding_endpoint(settings: Settings) -> _Models:
    """The same as `shared/providers/openai_embedder.py` uses."""
    prefix = _embedding_prefix(settings)
    key = settings.openai_api_key if prefix == "OPENAI" else settings.openai_embedding_api_key
    url = settings.openai_embedding_base_url or settings.openai_base_url
    return cast(
        _Models,
        Endpoint(url, key.get_secret_value(), timeout_seconds=TIMEOUT_SECONDS, settings_prefix=prefix),
    )


def _embedding_prefix(settings: Settings) -> str:
    """Of the settings that the embedding endpoint uses."""
    has_own = settings.openai_embedding_base_url or settings.openai_embedding_api_key.get_secret_value()
    return "OPENAI_EMBEDDING" if has_own else "OPENAI"


def _seconds_since(started: float) -> str:
    return f"{time.monotonic() - started:.2f} s"
