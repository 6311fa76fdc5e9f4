"""The providers that the settings name.

GENERATOR and EMBEDDER name, in this order of precedence, a built-in provider, an entry point of an installed package
(in the groups `promptwire.generators` and `promptwire.embedders`), or the dotted path of your own
(`package.module:factory`). Each leads to a factory: a callable that takes the settings and returns a `Generator` or an
`Embedder`.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any, NamedTuple

from shared.providers import Embedder, Embedders, Generator
from shared.settings import Settings, SettingsError

Factory = Callable[[Settings], Any]


class _Kind(NamedTuple):
    """What there is of a kind of providers, and what each of them has."""

    built_in: Mapping[str, str]
    group: str
    members: tuple[str, ...]


_GENERATORS = _Kind(
    {
        "simulated": "shared.providers.simulated:make",
        "openai": "shared.providers.openai_generator:make",
    },
    "promptwire.generators",
    ("name", "max_batch_size", "generate"),
)
_EMBEDDERS = _Kind(
    {
        "hashing": "shared.providers.hashing:make",
        "minilm": "shared.providers.minilm:make",
        "openai": "shared.providers.openai_embedder:make",
    },
    "promptwire.embedders",
    ("name", "dimension", "is_remote", "embed"),
)


def make_generator(settings: Settings) -> Generator:
    """The generator that GENERATOR names. Raises SettingsError if there is none, or if it cannot be made."""
    generator: Generator = _make(_GENERATORS, "GENERATOR", settings.generator, settings)
    return generator


def make_embedder(settings: Settings) -> Embedder:
    """The embedder that EMBEDDER names. Raises SettingsError if there is none, or if it cannot be made."""
    embedder: Embedder = _make(_EMBEDDERS, "EMBEDDER", settings.embedder, settings)
    return embedder


def make_embedders(settings: Settings) -> Embedders:
    """The embedders that EMBEDDER and PREVIOUS_EMBEDDER name. Raises SettingsError if there is none."""
    previous = settings.previous_embedder
    return Embedders(
        make_embedder(settings), _make(_EMBEDDERS, "PREVIOUS_EMBEDDER", previous, settings) if previous else None
    )


def _make(kind: _Kind, setting: str, name: str, settings: Settings) -> Any:
    """What the factory of that name makes, if it has what its kind has."""
    given = f"{setting}={name!r}"
    factory = _factory(kind, given, name)
    try:
        made = factory(settings)
    except SettingsError as error:
        raise SettingsError(f"{given}: {error}") from error
    except Exception as error:  # whatever people's own code raises
        raise SettingsError(f"{given} could not be made: {_told(error)}") from error
    for member in kind.members:
        if not hasattr(made, member):
            raise SettingsError(f"{given} is no provider of the kind: it has no `{member}`.")
    return made


def _factory(kind: _Kind, given: str, name: str) -> Factory:
    path = kind.built_in.get(name) or _installed(kind).get(name) or name
    if path == name and not {".", ":"} & set(name):
        there_are = ", ".join(sorted({*kind.built_in, *_installed(kind)}))
        raise SettingsError(
            f"{given} names no provider. There are: {there_are}; or your own, as package.module:factory."
        )
    try:
        factory: Factory = resolve_name(path)
    except Exception as error:  # whatever people's own modules raise
        raise SettingsError(f"{given} could not be imported: {_told(error)}") from error
    if not callable(factory):
        raise SettingsError(f"{given} is no factory: it cannot be called.")
    return factory


def _installed(kind: _Kind) -> dict[str, str]:
    """The paths of the factories that installed packages declare, by name."""
    return {point.name: point.value for point in entry_points(group=kind.group)}


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
