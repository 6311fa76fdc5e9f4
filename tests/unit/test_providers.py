"""Choosing providers by setting: built in, from an installed package, or one's own."""

from pathlib import Path

import pytest

from shared.providers.factory import make_embedder, make_embedders, make_generator
from shared.providers.hashing import HashingEmbedder
from shared.providers.simulated import SimulatedGenerator
from shared.settings import SettingsError
from tests.support.providers import Backwards, Commanded
from tests.support.servers import make_settings

ADDRESSES = {"database_url": "postgresql://x", "redis_url": "redis://x"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python imports from."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def install(folder: Path, **groups: str) -> None:
    """A package there that declares entry points, as pip would leave it."""
    metadata = folder / "of_somebody-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: of-somebody\nVersion: 1.0\n")
    lines = [f"[promptwire.{group}]\n{points}\n" for group, points in groups.items()]
    (metadata / "entry_points.txt").write_text("\n".join(lines))


def refusal(generator: str) -> str:
    """What is said of a generator that there is not."""
    with pytest.raises(SettingsError) as raised:
        make_generator(make_settings(**ADDRESSES, generator=generator))
    return str(raised.value)


def test_the_defaults_are_simulated() -> None:
    settings = make_settings(**ADDRESSES)
    assert isinstance(make_generator(settings), SimulatedGenerator)
    assert isinstance(make_embedder(settings), HashingEmbedder)


@pytest.mark.parametrize("path", ["tests.support.providers:commanded", "tests.support.providers.commanded"])
def test_ones_own_is_named_by_its_dotted_path(path: str) -> None:
    assert isinstance(make_generator(make_settings(**ADDRESSES, generator=path)), Commanded)


def test_those_of_installed_packages_are_named_as_they_say(folder: Path) -> None:
    install(
        folder,
        generators="commanded = tests.support.providers:commanded",
        embedders="backwards = tests.support.providers:Backwards",
    )
    settings = make_settings(**ADDRESSES, generator="commanded", embedder="backwards", previous_embedder="hashing")
    assert isinstance(make_generator(settings), Commanded)
    embedders = make_embedders(settings)
    assert isinstance(embedders.current, Backwards)
    assert isinstance(embedders.resolve("hashing-1"), HashingEmbedder)


def test_a_package_does_not_replace_what_is_built_in(folder: Path) -> None:
    install(folder, generators="simulated = tests.support.providers:commanded")
    assert isinstance(make_generator(make_settings(**ADDRESSES)), SimulatedGenerator)


def test_for_an_unknown_name_it_is_said_what_there_is(folder: Path) -> None:
    install(folder, generators="mine = tests.support.providers:commanded", embedders="other = x:y")
    said = refusal("gpt")
    assert said.startswith("GENERATOR='gpt' names no provider. There are: ")
    assert all(name in said for name in ("mine", "simulated", "package.module:factory"))
    assert "other" not in said
    assert refusal("").startswith("GENERATOR='' names no provider.")


def test_a_previous_embedder_that_there_is_not_is_told_by_its_own_setting() -> None:
    with pytest.raises(SettingsError, match="PREVIOUS_EMBEDDER='gone'"):
        make_embedders(make_settings(**ADDRESSES, previous_embedder="gone"))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("missing.module:make", "GENERATOR='missing.module:make' could not be imported: ModuleNotFoundError: "),
        ("own:missing", "could not be imported: AttributeError: module 'own' has no attribute 'missing'"),
        ("not a name:x", "could not be imported: ValueError: "),
        ("broken:make", "could not be imported: ModuleNotFoundError: No module named 'a_library'"),
        ("mistyped:make", "could not be imported: SyntaxError: "),
        ("own:NUMBER", "is no factory: it cannot be called."),
        ("own:raises", "GENERATOR='own:raises' could not be made: KeyError: 'MY_KEY'"),
        ("own:refuses", "GENERATOR='own:refuses': MY_KEY is not set."),
        ("own:object", "is no provider of the kind: it has no `name`."),
        ("own:Nameless", "is no provider of the kind: it has no `name`."),
        ("own:Half", "is no provider of the kind: it has no `generate`."),
    ],
)
def test_what_is_wrong_with_ones_own_is_said_in_a_sentence(folder: Path, path: str, says: str) -> None:
    (folder / "broken.py").write_text("import a_library")
    (folder / "mistyped.py").write_text("def make(:")
    (folder / "own.py").write_text(
        "from shared.settings import SettingsError\n"
        "NUMBER = 1\n"
        "def raises(settings): return {}['MY_KEY']\n"
        "def refuses(settings): raise SettingsError('MY_KEY is not set.')\n"
        "def object(settings): return 1\n"
        "class Nameless:\n    def __init__(self, settings): ...\n"
        "class Half(Nameless):\n    name, max_batch_size = 'half', 1\n"
    )
    said = refusal(path)
    assert says in said
    assert "\n" not in said.strip()
