"""Creates the providers that the settings name.

GENERATOR and EMBEDDER name, in this order of precedence, a built-in provider, an entry point of an installed package
(in the groups `promptwire.generators` and `promptwire.embedders`), or the dotted path of your own
(`package.module:factory`). Each leads to a factory: a callable that takes the settings and returns a `Generator` or an
`Embedder`.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any, NamedTuple

from shared.providers import Embedder, Embedders, Generator
from shared.settings import Settings, SettingsError

Factory = Callable[[Settings], Any]


class _Kind(NamedTuple):
    """A kind of provider."""

    noun: str  #: with its article, for messages
    built_in: Mapping[str, str]
    group: str  #: of entry points
    members: tuple[str, ...]  #: what every provider of the kind has
    renamed: Mapping[str, str] = MappingProxyType({})  #: the names that members had in earlier versions


_GENERATORS = _Kind(
    "a generator",
    {
        "simulated": "shared.providers.simulated:make",
        "openai": "shared.providers.openai_generator:make",
    },
    "promptwire.generators",
    ("name", "max_batch_size", "generate"),
    renamed={"max_batch_size": "at_once"},
)
_EMBEDDERS = _Kind(
    "an embedder",
    {
        "hashing": "shared.providers.hashing:make",
        "minilm": "shared.providers.minilm:make",
        "openai": "shared.providers.openai_embedder:make",
    },
    "promptwire.embedders",
    ("name", "dimension", "is_remote", "embed"),
)


def make_generator(settings: Settings) -> Generator:
    """Create the generator that GENERATOR names. Raises SettingsError if that is impossible."""
    generator: Generator = _make(_GENERATORS, "GENERATOR", settings.generator, settings)
    return generator


def make_embedder(settings: Settings) -> Embedder:
    """Create the embedder that EMBEDDER names. Raises SettingsError if that is impossible."""
    embedder: Embedder = _make(_EMBEDDERS, "EMBEDDER", settings.embedder, settings)
    return embedder


def make_embedders(settings: Settings, wrap: Callable[[Embedder], Embedder] = lambda embedder: embedder) -> Embedders:
    """Create the embedders that EMBEDDER and PREVIOUS_EMBEDDER name, each passed through `wrap`.

    Raises:
        SettingsError: that is impossible.
    """
    name = settings.previous_embedder
    previous = wrap(_make(_EMBEDDERS, "PREVIOUS_EMBEDDER", name, settings)) if name else None
    return Embedders(wrap(make_embedder(settings)), previous)


def _make(kind: _Kind, setting: str, name: str, settings: Settings) -> Any:
    """Call the factory of that name, and check that the provider has all members of its kind."""
    given = f"{setting}={name!r}"
    factory = _find_factory(kind, given, name)
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


def _missing(kind: _Kind, given: str, provider: object, member: str) -> str:
    old_name = kind.renamed.get(member)
    if old_name is not None and hasattr(provider, old_name):
        return f"{given} is written for an earlier version: rename its `{old_name}` to `{member}`."
    return f"{given} is not {kind.noun}: it has no `{member}`."


def _find_factory(kind: _Kind, given: str, name: str) -> Factory:
    path = kind.built_in.get(name) or _installed(kind).get(name) or name
    if path == name and not {".", ":"} & set(name):
        known = ", ".join(sorted({*kind.built_in, *_installed(kind)}))
        noun = kind.noun.split()[-1]
        raise SettingsError(
            f"{given} is not a known {noun}. Known: {known}; or give your own as package.module:factory."
        )
    try:
        factory: Factory = resolve_name(path)
    except Exception as error:  # custom modules may raise anything
        raise SettingsError(f"{given} could not be imported: {_describe(error)}") from error
    if not callable(factory):
        raise SettingsError(f"{given} is not a factory: it cannot be called.")
    return factory


def _installed(kind: _Kind) -> dict[str, str]:
    """Return the paths of the factories that installed packages declare, by name."""
    return {point.name: point.value for point in entry_points(group=kind.group)}


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
