"""Generators and embedders that yield something other than text, or try to end the process, only fail the attempt."""

import dataclasses
import tracemalloc
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import text

from shared.db.engine import Sessions
from shared.providers import GenerationRequest, Usage, embed
from shared.settings import Settings
from tests.support import lifecycle
from tests.support.client import ApiUser
from tests.support.providers import Exiting
from tests.support.servers import Servers
from worker.generator_guard import ProviderExitedError
from worker.leases import WorkerStopping
from worker.pipeline import Pipeline
from worker.services import make_services


class Yielding:
    """Yields these parts; raises those that are exceptions. `closed` counts how often it was closed."""

    name, max_batch_size = "yielding", 1

    def __init__(self, *parts: object) -> None:
        self.parts, self.closed = parts, 0

    def generate(self, request: GenerationRequest) -> Iterator[object]:
        try:
            for part in self.parts:
                if isinstance(part, BaseException):
                    raise part
                yield part
        finally:
            self.closed += 1


class Calling:
    """Returns from `generate` what the function returns."""

    name, max_batch_size = "calling", 1

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def generate(self, request: GenerationRequest) -> object:
        return self._function()


def attempts_left(sessions: Sessions) -> int:
    with sessions() as session:
        left = session.scalar(text("SELECT attempt_limit - attempt FROM prompts"))
        assert left is not None
        return left


def fail_last_attempt(alice: ApiUser, worker: Pipeline, sessions: Sessions, **changes: object) -> str:
    """Have a prompt answered that has one attempt. Returns its error."""
    prompt_id = alice.submit()
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET attempt_limit = 1"))
    dataclasses.replace(worker, **changes).process(1)
    shown = alice.show(prompt_id)
    assert (shown["status"], shown["response_text"]) == ("failed", None)
    return str(shown["error"])


@pytest.mark.parametrize(
    ("part", "described"),
    [(None, "None"), (b"bytes", "a bytes"), (7, "an int"), (object(), "an object")],
)
def test_a_generator_that_yields_anything_but_text_fails_the_attempt(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, part: object, described: str
) -> None:
    generator = Yielding("half an ", part, "answer")
    error = fail_last_attempt(alice, worker, sessions, generator=generator)
    assert error == f"The generator yielded {described} instead of text."
    assert generator.closed == 1


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ((), "The model returned no text."),
        (("", ""), "The model returned no text."),
        (("", Usage("m", 1, 0, "stop")), "The model returned no text."),
        ((Usage(finish_reason="tool_calls"),), "The model returned no text, only calls of tools."),
        ((Usage(finish_reason="length"),), "The model returned no text before its length limit."),
        ((Usage(finish_reason="content_filter"),), "The provider's content filter blocked the answer."),
    ],
)
def test_an_answer_without_text_fails_the_attempt_and_says_why(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, parts: tuple[object, ...], error: str
) -> None:
    assert fail_last_attempt(alice, worker, sessions, generator=Yielding(*parts)) == error


@pytest.mark.parametrize(
    ("raised", "max_batch_size"),
    [(SystemExit, 1), (SystemExit, 10), (KeyboardInterrupt, 1), (GeneratorExit, 1), (CancelledError, 1)],
)
def test_a_generator_cannot_end_the_worker(
    alice: ApiUser, bob: ApiUser, worker: Pipeline, sessions: Sessions, raised: type[BaseException], max_batch_size: int
) -> None:
    generator = Yielding("half an answer", raised("a secret"))
    generator.max_batch_size = max_batch_size
    error = fail_last_attempt(alice, worker, sessions, generator=generator)
    assert error == f"The generation failed ({raised.__name__})."
    other = bob.submit()
    worker.process(1)
    assert bob.show(other)["status"] == "completed"


def _exit() -> Iterator[str]:
    raise SystemExit


class _ExitsWhenClosed:
    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> object:
        return b"no text"

    def close(self) -> None:
        raise SystemExit


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (_exit, "The generation failed (SystemExit)."),
        (lambda: None, "The generation failed (TypeError)."),
        (_ExitsWhenClosed, "The generator yielded a bytes instead of text."),
    ],
    ids=["generate exits", "generate returns None", "close exits"],
)
def test_a_generator_that_is_not_a_python_generator_cannot_end_the_worker(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, function: Callable[[], object], error: str
) -> None:
    assert fail_last_attempt(alice, worker, sessions, generator=Calling(function)) == error


def test_exits_of_a_generator_use_up_the_attempts(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    prompt_id = alice.submit()
    exiting = dataclasses.replace(worker, generator=Yielding(SystemExit()), retry_backoff=timedelta(0))
    for attempt in range(1, 6):
        exiting.process(1)
        assert alice.show(prompt_id)["attempt"] == attempt
        with sessions.begin() as session:
            lifecycle.end_backoffs(session)
    assert alice.show(prompt_id)["status"] == "failed"


@pytest.mark.parametrize("setting", ["embedder", "previous_embedder"])
def test_an_embedder_cannot_end_the_worker(servers: Servers, settings: Settings, setting: str) -> None:
    changed = servers.changed(settings, **{setting: "tests.support.providers:Exiting"})
    pipeline = make_services(changed).pipeline
    embedder = pipeline.embedders.resolve(Exiting.name)
    with pytest.raises(ProviderExitedError):
        embed(embedder, ["a text"])
    pipeline.sessions.kw["bind"].dispose()


def _stop() -> None:
    raise WorkerStopping


def _converted() -> Iterator[str]:
    yield "half"
    try:
        _stop()
    except BaseException:
        raise ValueError("the subprocess was killed") from None


@pytest.mark.parametrize(
    "generator", [Yielding("half", WorkerStopping()), Calling(_converted)], ids=["raised", "converted by the generator"]
)
def test_a_stop_releases_the_prompt_without_using_up_an_attempt(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, generator: object
) -> None:
    prompt_id = alice.submit()
    before = attempts_left(sessions)
    with pytest.raises(WorkerStopping):
        dataclasses.replace(worker, generator=generator).process(1)
    assert alice.show(prompt_id)["status"] == "queued"
    assert attempts_left(sessions) == before


def test_a_generator_of_empty_texts_without_end_takes_no_memory_and_ends_at_the_time_limit(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    """The signal of the time limit interrupts it wherever it is; here after a number of texts."""
    grown_bytes = 0

    class Endless:
        name, max_batch_size = "endless", 1

        def generate(self, request: GenerationRequest) -> Iterator[str]:
            nonlocal grown_bytes
            tracemalloc.start()
            try:
                for _ in range(100_000):
                    yield ""
                grown_bytes, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            raise SoftTimeLimitExceeded

    error = fail_last_attempt(alice, worker, sessions, generator=Endless())
    assert "GENERATION_TIMEOUT_SECONDS" in error
    assert grown_bytes < 400_000  # a list of them would take 800 kB
