"""Simulated answers by patterns, without a model. A prompt always has the same answer."""

import re
import time
from collections.abc import Iterator

from shared.providers import GenerationRequest, Usage
from shared.providers.tokens import estimate_tokens
from shared.settings import Settings

_QUOTE_LENGTH = 200
_WORDS_PER_CHUNK = 4
_MAX_BATCH_SIZE = 100

# The first pattern that matches decides.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"^\W*(hi|hello|hey|greetings|good (morning|afternoon|evening))\b", re.IGNORECASE),
        "Hello! I am a simulated assistant. Ask me a question, or ask me to explain something.",
    ),
    (
        re.compile(r"\b(help|assist|support)\b", re.IGNORECASE),
        "I am happy to help with “{quote}”. Tell me what you have tried, what you expected and what happened "
        "instead, and we will go through it step by step.",
    ),
    (
        re.compile(r"\b(explain|describe|tell me about|elaborate)\b", re.IGNORECASE),
        "Here is an explanation for “{quote}”. Start from what it is for, then look at its parts, and last at how "
        "they work together. A real model would go on from here; this answer is simulated.",
    ),
    (
        re.compile(
            r"\?\s*$|^\W*(what|who|whom|whose|when|where|why|which|how|is|are|do|does|can|could)\b",
            re.IGNORECASE,
        ),
        "You asked “{quote}”. That is a good question. A real model would answer it here; this answer is simulated.",
    ),
)
_DEFAULT_ANSWER = "I have read “{quote}”. A real model would respond to it here; this answer is simulated."


class SimulatedGenerator:
    """Greets, helps, explains, answers or acknowledges, depending on the prompt's wording.

    Args:
        delay: The total time of an answer in seconds, spread over its chunks.
    """

    name = "simulated-1"

    def __init__(self, delay: float = 0) -> None:
        self._delay = delay
        self.max_batch_size = 1 if delay else _MAX_BATCH_SIZE

    def generate(self, request: GenerationRequest) -> Iterator[str | Usage]:
        answer = self.answer(request.prompt_text)
        words = re.findall(r"\S+\s*", answer)
        chunks = ["".join(words[i : i + _WORDS_PER_CHUNK]) for i in range(0, len(words), _WORDS_PER_CHUNK)]
        for chunk in chunks:
            if self._delay:
                time.sleep(self._delay / len(chunks))
            yield chunk
        yield Usage(self.name, *self.usage(request.prompt_text, answer), finish_reason="stop")

    @staticmethod
    def usage(prompt_text: str, answer: str) -> tuple[int, int]:
        """The tokens of a prompt and of its answer. It does not read the history, so that uses none."""
        return estimate_tokens(prompt_text), estimate_tokens(answer)

    @staticmethod
    def answer(prompt_text: str) -> str:
        """Return the whole answer."""
        template = next((answer for pattern, answer in _PATTERNS if pattern.search(prompt_text)), _DEFAULT_ANSWER)
        quote = " ".join(prompt_text.split())
        if len(quote) > _QUOTE_LENGTH:
            quote = quote[: _QUOTE_LENGTH - 1].rstrip() + "…"
        return template.replace("{quote}", quote)


def make(settings: Settings) -> SimulatedGenerator:
    return SimulatedGenerator(settings.simulated_delay)
