"""The work of each built-in provider is in proportion to the length of a text, whatever it contains."""

from collections.abc import Callable

import pytest

from shared.providers import GenerationRequest, embed
from shared.providers.hashing import HashingEmbedder
from shared.providers.json_events import EventReader
from shared.providers.minilm import MiniLMEmbedder
from shared.providers.openai_embedder import _cut
from shared.providers.simulated import SimulatedGenerator
from shared.providers.surrogates import Joiner
from tests.support.costs import assert_linear, cpu_seconds

LENGTH = 25_000
TEXTS: dict[str, Callable[[int], str]] = {
    "marks": lambda n: "a" + "\u0345" * (n // 2) + "\u0334" * (n // 2),
    "marks of several characters": lambda n: "\u0344\u0345\u0334" * (n // 3),
    "letters that become marks": lambda n: "a" + "\u0345\uff9e" * (n // 2),
    "short runs of marks": lambda n: ("a" + "\u0345\u0334" * 15) * (n // 31),
    "one word": lambda n: "x" * n,
    "one word of hangul": lambda n: "\u1112\u1161\u11ab" * (n // 3),
    "no word": lambda n: "!" * n,
    "question marks": lambda n: "? " * (n // 2) + "x",
    "spaces": lambda n: "?" + " " * n + "x",
    "quotes": lambda n: "what " * (n // 5),
    "ligatures": lambda n: "\ufdfa" * (n // 18),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_hashing_takes_a_time_in_proportion_to_the_text(kind: str) -> None:
    assert_linear(lambda length: embed(HashingEmbedder(), [TEXTS[kind](length)]), LENGTH)


@pytest.mark.parametrize("kind", TEXTS)
def test_a_simulated_answer_takes_a_time_in_proportion_to_the_prompt(kind: str) -> None:
    generator = SimulatedGenerator()
    assert_linear(lambda length: list(generator.generate(GenerationRequest(TEXTS[kind](length)))), LENGTH)


@pytest.mark.parametrize("kind", TEXTS)
def test_cutting_a_text_for_an_endpoint_takes_a_time_in_proportion_to_the_text(kind: str) -> None:
    assert_linear(lambda length: _cut(TEXTS[kind](length)), LENGTH)


@pytest.mark.parametrize("body", [b"}\n", b"data: x\n", b"x", b": ping\n", b"data: {}\n\n", b"\r"])
@pytest.mark.parametrize("start", [b"", b"{\n"])
def test_reading_a_stream_takes_a_time_in_proportion_to_its_length(start: bytes, body: bytes) -> None:
    def read(length: int) -> None:
        reader = EventReader()
        for piece in (start, *(body * 10 for _ in range(length // 10))):
            reader.feed(piece)
        reader.close()

    assert_linear(read, LENGTH)


@pytest.mark.parametrize("half", [0xD83D, 0xDE00, 0xDCF0, 0xDC9F], ids=hex)
def test_joining_cut_characters_takes_a_time_in_proportion_to_the_text(half: int) -> None:
    assert_linear(lambda length: Joiner().join(chr(half) * length), LENGTH)


@pytest.fixture(scope="module")
def minilm() -> MiniLMEmbedder:
    return MiniLMEmbedder()


@pytest.mark.parametrize("kind", TEXTS)
def test_minilm_takes_no_longer_for_any_text_than_for_256_tokens(minilm: MiniLMEmbedder, kind: str) -> None:
    ordinary = cpu_seconds(lambda: embed(minilm, ["the tides of the ocean " * 1_000]))
    assert cpu_seconds(lambda: embed(minilm, [TEXTS[kind](4 * LENGTH)])) < 4 * ordinary + 0.1
