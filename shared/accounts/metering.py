"""Measuring what an attempt at a prompt uses: tokens, and their cost at the prices of the model's route."""

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple, Self

from shared.providers.tokens import estimate_tokens, tokens_of_bytes
from shared.settings import Settings

_PER_TOKENS = Decimal(1_000_000)


class Prices(NamedTuple):
    """The prices of a million tokens, in any currency."""

    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(settings.input_price, settings.output_price)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """The cost of these tokens, exactly."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / _PER_TOKENS


FREE = Prices()


class Used(NamedTuple):
    """What an attempt used. All are None if that is not known, or not yet."""

    used_prompt_tokens: int | None = None
    used_completion_tokens: int | None = None
    cost: Decimal | None = None


class Meter:
    """Counts what one attempt uses.

    These are the numbers that the generator reports. Until it has, they are estimated: the prompt with its history,
    and the text received so far.
    """

    def __init__(self, prices: Prices = FREE) -> None:
        self._prices = prices
        self.reset()

    def reset(self) -> None:
        """Set all counts to zero."""
        self._prompt_tokens = 0
        self._received_bytes = 0
        self._reported: tuple[int | None, int | None] = (None, None)

    def send(self, texts: Iterable[str]) -> None:
        """Count a prompt, with its history, that the provider is sent."""
        self._prompt_tokens = sum(map(estimate_tokens, texts))

    def receive(self, byte_count: int) -> None:
        """Count bytes of the answer."""
        self._received_bytes += byte_count

    def report(self, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Count what the generator reports instead of the estimate. None: it does not report that number."""
        self._reported = (prompt_tokens, completion_tokens)

    @property
    def used(self) -> Used:
        """What the attempt has used so far."""
        prompt_tokens, completion_tokens = self._reported
        if prompt_tokens is None:
            prompt_tokens = self._prompt_tokens
        if completion_tokens is None:
            completion_tokens = tokens_of_bytes(self._received_bytes)
        return Used(prompt_tokens, completion_tokens, self._prices.cost(prompt_tokens, completion_tokens))
