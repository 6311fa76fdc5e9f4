"""The simulated generator: patterns, chunks, a delay."""

import time

import pytest

from shared.providers import GenerationRequest, Usage
from shared.providers.simulated import SimulatedGenerator
from shared.providers.tokens import estimate_tokens


def chunks_for(prompt: str, delay: float = 0) -> list[str]:
    *chunks, usage = SimulatedGenerator(delay).generate(GenerationRequest(prompt))
    assert usage == Usage("simulated-1", estimate_tokens(prompt), estimate_tokens("".join(chunks)), "stop")
    return chunks


def answer(prompt: str) -> str:
    return "".join(chunks_for(prompt))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Hello there", "Hello! I am a simulated assistant"),
        ("good morning", "Hello! I am a simulated assistant"),
        ("I need help with my taxes", "I am happy to help"),
        ("Explain quantum entanglement", "Here is an explanation for “Explain quantum entanglement”"),
        ("Is it going to rain?", "You asked “Is it going to rain?”"),
        ("how do tides work", "You asked “how do tides work”"),
        ("Lorem ipsum", "I have read “Lorem ipsum”"),
        ("Hi-fi systems", "Hello!"),
        ("History of Rome", "I have read"),
    ],
)
def test_the_answer_depends_on_the_prompts_pattern(prompt: str, expected: str) -> None:
    assert answer(prompt).startswith(expected)


def test_the_same_prompt_has_the_same_answer() -> None:
    assert answer("Why?") == answer("Why?")


def test_an_answer_comes_in_several_chunks() -> None:
    chunks = chunks_for("Explain tides")
    assert len(chunks) > 3
    assert all(chunks)


def test_a_long_prompt_is_quoted_in_part_and_braces_are_not_interpreted() -> None:
    assert len(answer("word " * 20_000)) < 500
    assert "{quote}" in answer("{quote} {0} %s")


def test_the_delay_is_the_total_time_of_an_answer() -> None:
    started = time.monotonic()
    chunks_for("Hello", delay=0.2)
    assert time.monotonic() - started >= 0.2
