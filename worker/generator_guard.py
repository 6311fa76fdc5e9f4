"""Calls of generators and embedders, which may be custom code and raise anything.

Whatever they raise becomes an exception of one attempt. Otherwise a `sys.exit()` in a generator would look like the
signal to stop this worker: its prompts would be released without using up an attempt, and crash one worker after the
other.
"""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Generator as PythonGenerator
from typing import ParamSpec, TypeVar

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from shared.errors import ProviderError
from shared.providers import Embedder, GenerationRequest, Generator, Usage, Vectors
from worker.leases import WorkerStopping

log = structlog.get_logger(__name__)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_END = object()


class ProviderExitedError(Exception):
    """A generator or an embedder raised what would end the process, such as SystemExit: the cause of this error."""


def call(function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """Call a function of a provider.

    Raises:
        ProviderExitedError: it raised SystemExit, KeyboardInterrupt, GeneratorExit or the like.
        Exception: it raised this exception.
        WorkerStopping: this process got the signal to stop during the call, whatever the function raised instead.
    """
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        stopping = _find_stop(error)
        if stopping is not None:
            raise stopping from None
        if isinstance(error, Exception):
            raise
        raise ProviderExitedError from error


def read_parts(generator: Generator, request: GenerationRequest) -> PythonGenerator[str | Usage, None, None]:
    """Yield what the generator yields, and close it when this iterator is closed.

    Raises:
        ProviderError: it yielded something else.
        ProviderExitedError, WorkerStopping: as `call`.
    """
    parts = call(lambda: iter(generator.generate(request)))
    try:
        while (part := call(next, parts, _END)) is not _END:
            if not isinstance(part, str | Usage):
                raise ProviderError(f"The generator yielded {_describe(part)} instead of text.")
            yield part
    finally:
        _close(parts)


class GuardedEmbedder:
    """An embedder that raises what `call` does. It has everything else that the given one has."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.name, self.dimension, self.is_remote = embedder.name, embedder.dimension, embedder.is_remote

    def embed(self, texts: Sequence[str]) -> Vectors:
        return call(self._embedder.embed, texts)

    def __getattr__(self, name: str) -> object:
        return getattr(self._embedder, name)


def _close(parts: Iterator[object]) -> None:
    """Close the generator, which closes its connection to the provider at once."""
    close = getattr(parts, "close", None)
    if close is None:
        return
    try:
        call(close)
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:  # the attempt has ended, in one way or the other
        log.warning("generator not closed", error=type(error).__name__)


def _find_stop(error: BaseException) -> WorkerStopping | None:
    """The stop signal that led to this error, perhaps because it was raised while that was handled."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, WorkerStopping):
        seen = seen.__context__
    return seen


def _describe(part: object) -> str:
    if part is None:
        return "None"
    name = type(part).__name__
    return f"{'an' if name[:1].lower() in set('aeiou') else 'a'} {name}"
