"""Creates the providers that the settings name.

A name (see `shared/settings/provider_names.py`) leads to a factory: a callable that takes the settings and returns a
`Generator` or an `Embedder`.
"""

from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import Any, TypeVar

from shared.providers import Embedder, Embedders, Generator
from shared.providers.model_request import Capability
from shared.settings import Settings, SettingsError
from shared.settings.provider_names import EMBEDDERS, GENERATORS, Kind, factory_path

Factory = Callable[[Settings], Any]
_F = TypeVar("_F", bound=Factory)


def capable_of(*capabilities: Capability) -> Callable[[_F], _F]:
    """Declare what the generators of a factory can do besides answering a text. Without it, that is nothing."""

    def declare(factory: _F) -> _F:
        factory.capabilities = frozenset(capabilities)  # type: ignore[attr-defined]
        return factory

    return declare


def capabilities(settings: Settings) -> frozenset[Capability]:
    """What the generator that GENERATOR names can do. It is not created for that. Raises SettingsError."""
    factory = _find_factory(GENERATORS, "GENERATOR", settings.generator)
    declared: frozenset[Capability] = getattr(factory, "capabilities", frozenset())
    return declared


def make_generator(settings: Settings) -> Generator:
    """Create the generator that GENERATOR names. Raises SettingsError if that is impossible."""
    generator: Generator = _make(GENERATORS, "GENERATOR", settings.generator, settings)
    return generator


def make_generators(models: Mapping[str, Settings]) -> dict[str, Generator]:
    """Create the generators of model routes, by route. Raises SettingsError if one of them cannot be created."""
    generators = {}
    for route, settings in models.items():
        try:
            generators[route] = make_generator(settings)
        except SettingsError as error:
            raise SettingsError(f"The model {route}: {error}" if settings.models_file else str(error)) from error
    return generators


def make_embedder(settings: Settings) -> Embedder:
    """Create the embedder that EMBEDDER names. Raises SettingsError if that is impossible."""
    embedder: Embedder = _make(EMBEDDERS, "EMBEDDER", settings.embedder, settings)
    return embedder


def make_embedders(settings: Settings, wrap: Callable[[Embedder], Embedder] = lambda embedder: embedder) -> Embedders:
    """Create the embedders that EMBEDDER and PREVIOUS_EMBEDDER name, each passed through `wrap`.

    Raises:
        SettingsError: that is impossible.
    """
    name = settings.previous_embedder
    previous = wrap(_make(EMBEDDERS, "PREVIOUS_EMBEDDER", name, settings)) if name else None
    return Embedders(wrap(make_embedder(settings)), previous)


def _make(kind: Kind, setting: str, name: str, settings: Settings) -> Any:
    """Call the factory of that name, and check that the provider has all members of its kind."""
    given = f"{setting}={name!r}"
    factory = _find_factory(kind, setting, name)
    try:
        provider = factory(settings)
    except SettingsError as error:
        raise SettingsError(f"{given}: {error}") from error
    except Exception as error:  # custom code may raise anything
        raise SettingsError(f"{given} could not be created: {_describe(error)}") from error
    for member in kind.members:
        if not hasattr(provider, member):
            raise SettingsError(_missing(kind, given, provider, member))
    return provider


def _missing(kind: Kind, given: str, provider: object, member: str) -> str:
    old_name = kind.renamed.get(member)
    if old_name is not None and hasattr(provider, old_name):
        return f"{given} is written for an earlier version: rename its `{old_name}` to `{member}`."
    return f"{given} is not {kind.noun}: it has no `{member}`."


def _find_factory(kind: Kind, setting: str, name: str) -> Factory:
    given = f"{setting}={name!r}"
    try:
        path = factory_path(kind, setting, name)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    try:
        factory: Factory = resolve_name(path)
    except Exception as error:  # custom modules may raise anything
        raise SettingsError(f"{given} could not be imported: {_describe(error)}") from error
    if not callable(factory):
        raise SettingsError(f"{given} is not a factory: it cannot be called.")
    return factory


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
