"""Generators that misbehave, and another embedder. Settings name them by dotted path."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from shared.errors import ProviderError, ProviderUnavailableError
from shared.providers import GenerationRequest, Usage, Vectors
from shared.providers.factory import capable_of
from shared.providers.hashing import DIMENSION, HashingEmbedder
from shared.providers.model_request import Capability
from shared.providers.simulated import SimulatedGenerator
from shared.settings import Settings
from tests.support.servers import ROOT
from worker.deltas import FIRST_DELTA_SECONDS


class Script:
    """Answers each call with the next of these steps: a text, or an exception to raise."""

    name, max_batch_size = "script", 1

    def __init__(self, *steps: str | Exception, between_chunks: Callable[[], None] = lambda: None) -> None:
        self._steps = list(steps)
        self._between_chunks = between_chunks
        self.calls = 0

    def generate(self, request: GenerationRequest) -> Iterator[str]:
        step = self._steps[min(self.calls, len(self._steps) - 1)]
        self.calls += 1
        if isinstance(step, Exception):
            raise step
        for word in step.split(" "):
            yield f"{word} "
            self._between_chunks()


class Counting:
    """Numbers its answers, and records the requests."""

    max_batch_size = 1

    def __init__(self, name: str = "counting") -> None:
        self.name = name
        self.asked: list[GenerationRequest] = []

    def generate(self, request: GenerationRequest) -> Iterator[str | Usage]:
        self.asked.append(request)
        yield f"answer {len(self.asked)}"
        yield Usage("counting-large", 10, len(self.asked))


class Commanded:
    """Does what the first word of a prompt says, with the second as its argument; answers anything else.

    While the file `absence` exists it is unavailable, and appends a byte to the file for each call.
    """

    name, max_batch_size = "commanded", 100
    absence = ROOT / ".local" / "provider.away"

    def generate(self, request: GenerationRequest) -> Iterator[str | Usage]:
        if request.asked.response_format is not None:
            yield from SimulatedGenerator().generate(request)
            return
        if self.absence.exists():
            with self.absence.open("a") as calls:
                calls.write("x")
            raise ProviderUnavailableError("The provider is unavailable.")
        command, argument, *_ = [*request.prompt_text.split(" "), "", ""]
        if command == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif command == "hang":
            time.sleep(3600)
        elif command == "fail":
            raise ProviderError("The provider is unavailable.")
        elif command == "refuse":
            raise ProviderError("The provider does not want this.", retryable=False)
        elif command == "fail-until":
            if not Path(argument).exists():
                raise ConnectionError("a secret detail")
        elif command in ("fail-twice", "freeze-once"):
            self._misbehave(command, Path(argument))
        elif command == "break-once":
            yield from self._break_once(Path(argument))
        elif command == "slow":
            for i in range(int(argument)):
                time.sleep(0.1)
                yield f"{i} "
        elif command == "copy":
            yield from self._copy(Path(argument))
        elif command == "recall":
            yield from (f"{exchange.prompt_text} " for exchange in request.history)
        yield "done"

    def _copy(self, file: Path) -> Iterator[str]:
        """Yield what is written to the file, until a line is complete."""
        with file.open() as source:
            while not (text := source.read()).endswith("\n"):
                if text:
                    yield text
                time.sleep(0.02)
        yield text

    def _break_once(self, sign: Path) -> Iterator[str]:
        """Fail in the middle the first time, as soon as this file exists."""
        is_first = not sign.exists()
        yield "half\n"
        while not sign.exists():
            time.sleep(0.02)
        if is_first:
            raise ProviderError("The provider is unavailable.")
        yield "whole "

    def _misbehave(self, command: str, calls: Path) -> None:
        """Misbehave in the first calls. The size of the file is the number of calls."""
        with calls.open("a") as file:
            file.write("x")
        times = calls.stat().st_size
        if command == "fail-twice" and times <= 2:
            raise ProviderError("The provider is unavailable.")
        while command == "freeze-once" and times == 1:  # whatever is raised in it
            with contextlib.suppress(BaseException):
                time.sleep(3600)


class Gated:
    """The simulated answers. While the file `gate` exists, only their first four words come."""

    name, max_batch_size = "gated", 1

    def __init__(self, gate: Path) -> None:
        self._gate = gate

    def generate(self, request: GenerationRequest) -> Iterator[str]:
        words = re.findall(r"\S+\s*", SimulatedGenerator.answer(request.prompt_text))
        if self._gate.exists():
            time.sleep(2 * FIRST_DELTA_SECONDS)
        yield "".join(words[:4])
        while self._gate.exists():
            time.sleep(0.01)
        yield from words[4:]


class OneByOne(Commanded):
    """The same for one prompt at a time, so that its text is published as it is generated."""

    max_batch_size = 1


class Backwards:
    """The hashing embedder's vectors, reversed: another embedder with other vectors for the same texts."""

    name, dimension, is_remote = "backwards-1", DIMENSION, False

    def __init__(self, _: Settings) -> None: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        return HashingEmbedder().embed(texts)[:, ::-1].copy()


class Exiting(Backwards):
    """An embedder that tries to end its process."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        raise SystemExit


def commanded(_: Settings) -> Commanded:
    return Commanded()


@capable_of(*Capability)
def capable(_: Settings) -> OneByOne:
    return OneByOne()


def gated(_: Settings) -> Gated:
    return Gated(Path(os.environ["GATE"]))


@capable_of(Capability.JSON_SCHEMA)
def one_by_one(_: Settings) -> OneByOne:
    return OneByOne()
