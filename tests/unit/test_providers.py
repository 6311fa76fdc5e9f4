"""Providers chosen by settings: built-in, from an installed package, or custom."""

from pathlib import Path

import pytest

from shared.providers.factory import make_embedder, make_embedders, make_generator
from shared.providers.hashing import HashingEmbedder
from shared.providers.simulated import SimulatedGenerator
from shared.providers.tokens import estimate_tokens
from shared.settings import SettingsError
from tests.support.providers import Backwards, Commanded
from tests.support.servers import make_settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def install(folder: Path, **groups: str) -> None:
    """Add a package that declares entry points to the folder, as pip would."""
    metadata = folder / "third_party-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    lines = [f"[promptwire.{group}]\n{points}\n" for group, points in groups.items()]
    (metadata / "entry_points.txt").write_text("\n".join(lines))


def refusal(generator: str) -> str:
    """Return the error for a GENERATOR that cannot be created."""
    with pytest.raises(SettingsError) as raised:
        make_generator(make_settings(generator=generator))
    return str(raised.value)


def test_the_default_providers_need_no_model() -> None:
    settings = make_settings()
    assert isinstance(make_generator(settings), SimulatedGenerator)
    assert isinstance(make_embedder(settings), HashingEmbedder)


@pytest.mark.parametrize("path", ["tests.support.providers:commanded", "tests.support.providers.commanded"])
def test_a_custom_generator_is_named_by_its_dotted_path(path: str) -> None:
    assert isinstance(make_generator(make_settings(generator=path)), Commanded)


def test_providers_of_installed_packages_are_named_by_their_entry_points(folder: Path) -> None:
    install(
        folder,
        generators="commanded = tests.support.providers:commanded",
        embedders="backwards = tests.support.providers:Backwards",
    )
    settings = make_settings(generator="commanded", embedder="backwards", previous_embedder="hashing")
    assert isinstance(make_generator(settings), Commanded)
    embedders = make_embedders(settings)
    assert isinstance(embedders.current, Backwards)
    assert isinstance(embedders.resolve("hashing-1"), HashingEmbedder)


def test_a_package_cannot_replace_a_built_in_provider(folder: Path) -> None:
    install(folder, generators="simulated = tests.support.providers:commanded")
    assert isinstance(make_generator(make_settings()), SimulatedGenerator)


def test_the_error_for_an_unknown_name_lists_the_known_ones(folder: Path) -> None:
    install(folder, generators="mine = tests.support.providers:commanded", embedders="other = x:y")
    assert refusal("gpt") == (
        "GENERATOR='gpt' is not a known generator. Known: mine, openai, simulated; "
        "or give your own as package.module:factory."
    )
    assert refusal("").startswith("GENERATOR='' is not a known generator.")


def test_the_error_for_an_unknown_previous_embedder_names_its_setting() -> None:
    with pytest.raises(SettingsError, match="PREVIOUS_EMBEDDER='gone' is not a known embedder"):
        make_embedders(make_settings(previous_embedder="gone"))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("missing.module:make", "GENERATOR='missing.module:make' could not be imported: ModuleNotFoundError: "),
        ("own:missing", "could not be imported: AttributeError: module 'own' has no attribute 'missing'"),
        ("not a name:x", "could not be imported: ValueError: "),
        ("broken:make", "could not be imported: ModuleNotFoundError: No module named 'a_library'"),
        ("mistyped:make", "could not be imported: SyntaxError: "),
        ("own:NUMBER", "is not a factory: it cannot be called."),
        ("own:raises", "GENERATOR='own:raises' could not be created: KeyError: 'MY_KEY'"),
        ("own:refuses", "GENERATOR='own:refuses': MY_KEY is not set."),
        ("own:object", "is not a generator: it has no `name`."),
        ("own:Nameless", "is not a generator: it has no `name`."),
        ("own:Half", "is not a generator: it has no `generate`."),
    ],
)
def test_the_error_for_a_custom_generator_says_in_a_sentence_what_is_wrong(folder: Path, path: str, says: str) -> None:
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


def test_a_custom_generator_with_the_old_name_of_max_batch_size_is_refused(folder: Path) -> None:
    (folder / "legacy.py").write_text(
        "class Old:\n"
        "    name, at_once = 'old', 1\n"
        "    def __init__(self, settings): ...\n"
        "    def generate(self, request): yield 'Yes.'\n"
        "class Both(Old):\n    max_batch_size = 1\n"
    )
    assert refusal("legacy:Old") == (
        "GENERATOR='legacy:Old' is written for an earlier version: rename its `at_once` to `max_batch_size`."
    )
    assert make_generator(make_settings(generator="legacy:Both")).max_batch_size == 1


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 1), ("a", 1), ("abcd", 1), ("abcde", 2), ("é" * 4, 2), ("a" * 400, 100)]
)
def test_a_token_is_estimated_as_four_bytes_of_utf8_and_no_text_has_none(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens
