"""Choosing providers by setting."""

import pytest

from shared.providers import make_embedder, make_generator
from shared.providers.hashing import HashingEmbedder
from shared.providers.simulated import SimulatedGenerator
from shared.settings import SettingsError
from tests.support.providers import Commanded
from tests.support.servers import make_settings

ADDRESSES = {"database_url": "postgresql://x", "redis_url": "redis://x"}


def test_the_defaults_are_simulated() -> None:
    settings = make_settings(**ADDRESSES)
    assert isinstance(make_generator(settings), SimulatedGenerator)
    assert isinstance(make_embedder(settings), HashingEmbedder)


def test_ones_own_is_named_by_its_dotted_path() -> None:
    settings = make_settings(**ADDRESSES, generator="tests.support.providers:commanded")
    assert isinstance(make_generator(settings), Commanded)


@pytest.mark.parametrize("name", ["gpt", "tests.support.providers:missing", "missing.module:make", ""])
def test_an_unknown_one_is_named_in_the_error(name: str) -> None:
    with pytest.raises(SettingsError, match="GENERATOR="):
        make_generator(make_settings(**ADDRESSES, generator=name))
