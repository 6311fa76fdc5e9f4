"""Simulated answers by patterns, without a model. A prompt always has the same answer."""

import re
import time
from collections.abc import Iterator

from shared.errors import ProviderError
from shared.providers import GenerationRequest, Usage, simulated_answers
from shared.providers.factory import capable_of
from shared.providers.model_request import TEXT_ONLY, Capability
from shared.providers.simulated_answers import SimulatedAnswer, quote
from shared.providers.tokens import estimate_tokens
from shared.settings import Settings

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

    What a prompt asks for besides, it does by rules (`simulated_answers.py`). Sampling (`temperature`, `top_p`, `seed`,
    penalties) has its usual effect: it chooses among possible answers, and here there is one, whose probability is 1.
    Only `reasoning_effort` is refused, because nothing reasons.

    Args:
        delay: The total time of an answer in seconds, spread over its chunks.
    """

    name = "simulated-1"

    def __init__(self, delay: float = 0) -> None:
        self._delay = delay
        self.max_batch_size = 1 if delay else _MAX_BATCH_SIZE

    def generate(self, request: GenerationRequest) -> Iterator[str | Usage]:
        if request.asked is TEXT_ONLY:  # a short cut for almost all prompts
            answered = SimulatedAnswer(self.answer(request.prompt_text))
            tokens = self.usage(request.prompt_text, answered.text)
        else:
            answered = self._answered(request)
            tokens = _tokens(request, answered)
        words = re.findall(r"\S+\s*", answered.text)
        chunks = ["".join(words[i : i + _WORDS_PER_CHUNK]) for i in range(0, len(words), _WORDS_PER_CHUNK)]
        for chunk in chunks:
            if self._delay:
                time.sleep(self._delay / len(chunks))
            yield chunk
        yield Usage(self.name, *tokens, answered.finish_reason, answered.tool_calls or None)

    @classmethod
    def usage_of(cls, request: GenerationRequest) -> tuple[int, int]:
        """The tokens of a request and of its answer, exactly. It makes the answer; if there is none, that has none."""
        try:
            return _tokens(request, cls._answered(request))
        except ProviderError:
            return _tokens(request, SimulatedAnswer(""))

    @classmethod
    def _answered(cls, request: GenerationRequest) -> SimulatedAnswer:
        return simulated_answers.answer(request, cls.answer(request.prompt_text))

    @staticmethod
    def usage(prompt_text: str, answer: str) -> tuple[int, int]:
        """The tokens of a prompt that asks for nothing else, and of its answer."""
        return estimate_tokens(prompt_text), estimate_tokens(answer)

    @staticmethod
    def answer(prompt_text: str) -> str:
        """Return the whole answer."""
        template = next((answer for pattern, answer in _PATTERNS if pattern.search(prompt_text)), _DEFAULT_ANSWER)
        return template.replace("{quote}", quote(prompt_text))


def _tokens(request: GenerationRequest, answered: SimulatedAnswer) -> tuple[int, int]:
    """The tokens of a request and of its answer. The history is not read, so it uses none."""
    read = GenerationRequest(request.prompt_text, asked=request.asked).texts
    return sum(map(estimate_tokens, read)), answered.tokens


@capable_of(*(each for each in Capability if each is not Capability.REASONING_EFFORT))
def make(settings: Settings) -> SimulatedGenerator:
    return SimulatedGenerator(settings.simulated_delay)
