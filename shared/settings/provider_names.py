"""What GENERATOR, EMBEDDER and PREVIOUS_EMBEDDER may name.

A built-in provider, an entry point of an installed package, or the dotted path of your own (`package.module:factory`),
in this order of precedence. Nothing is imported here, so any process may check a name, also one that does not
use the provider. (It is not in `shared/providers`, which loads numpy and the metrics: the settings come before these.)
"""

from collections.abc import Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of provider."""

    noun: str  #: with its article, for messages
    built_in: Mapping[str, str]
    group: str  #: of entry points
    members: tuple[str, ...]  #: what every provider of the kind has
    renamed: Mapping[str, str] = MappingProxyType({})  #: the names that members had in earlier versions


GENERATORS = Kind(
    "a generator",
    {
        "simulated": "shared.providers.simulated:make",
        "openai": "shared.providers.openai_generator:make",
    },
    "promptwire.generators",
    ("name", "max_batch_size", "generate"),
    renamed={"max_batch_size": "at_once"},
)
EMBEDDERS = Kind(
    "an embedder",
    {
        "hashing": "shared.providers.hashing:make",
        "minilm": "shared.providers.minilm:make",
        "openai": "shared.providers.openai_embedder:make",
    },
    "promptwire.embedders",
    ("name", "dimension", "is_remote", "embed"),
)


def factory_path(kind: Kind, setting: str, name: str) -> str:
    """Return the dotted path of the factory that a setting names.

    Raises:
        ValueError: the name is neither built in nor installed, and is not a path. The message is for people.
    """
    if name in kind.built_in:
        return kind.built_in[name]
    installed = {point.name: point.value for point in entry_points(group=kind.group)}
    if name in installed:
        return installed[name]
    if {".", ":"} & set(name):
        return name
    known = ", ".join(sorted({*kind.built_in, *installed}))
    noun = kind.noun.split()[-1]
    raise ValueError(
        f"{setting}={name!r} is not a known {noun}. Known: {known}; or give your own as package.module:factory."
    )
