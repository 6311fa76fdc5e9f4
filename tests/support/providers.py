"""Generators that misbehave, and another embedder, behind our own Protocols; a setting names them by dotted path."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from shared.errors import ProviderError
from shared.providers import Vectors
from shared.providers.hashing import DIMENSION, HashingEmbedder
from shared.settings import Settings


class Script:
    """Answers each call with the next of these steps: a text, or an exception to raise."""

    at_once = 100

    def __init__(self, *steps: str | Exception, between_chunks: Callable[[], None] = lambda: None) -> None:
        self._steps = list(steps)
        self._between_chunks = between_chunks
        self.calls = 0

    def generate(self, prompt_text: str) -> Iterator[str]:
        step = self._steps[min(self.calls, len(self._steps) - 1)]
        self.calls += 1
        if isinstance(step, Exception):
            raise step
        for word in step.split(" "):
            yield f"{word} "
            self._between_chunks()


class Commanded:
    """Does what the first word of a prompt says, with the second as its argument; answers anything else."""

    at_once = 100

    def generate(self, prompt_text: str) -> Iterator[str]:
        command, argument, *_ = [*prompt_text.split(" "), "", ""]
        if command == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif command == "hang":
            time.sleep(3600)
        elif command == "fail":
            raise ProviderError("The provider is away.")
        elif command == "refuse":
            raise ProviderError("The provider does not want this.", retryable=False)
        elif command == "fail-until":
            if not Path(argument).exists():
                raise ConnectionError("a secret detail")
        elif command in ("fail-twice", "freeze-once"):
            self._misbehave(command, Path(argument))
        elif command == "slow":
            for i in range(int(argument)):
                time.sleep(0.1)
                yield f"{i} "
        yield "done"

    def _misbehave(self, command: str, calls: Path) -> None:
        """At first; the file counts the calls."""
        with calls.open("a") as file:
            file.write("x")
        times = calls.stat().st_size
        if command == "fail-twice" and times <= 2:
            raise ProviderError("The provider is away.")
        while command == "freeze-once" and times == 1:  # whatever is raised in it
            with contextlib.suppress(BaseException):
                time.sleep(3600)


class Backwards:
    """The hashing embedder's vectors, reversed: another embedder, with other vectors for the same texts."""

    name, dimension = "backwards-1", DIMENSION

    def __init__(self, _: Settings) -> None: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        return HashingEmbedder().embed(texts)[:, ::-1].copy()


def commanded(_: Settings) -> Commanded:
    return Commanded()
