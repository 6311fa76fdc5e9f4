"""Worker hosts as threads of this process, on a queue in memory, and a provider with a limited capacity."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from shared.errors import ProviderError
from shared.providers import GenerationRequest
from tests.support.servers import MAX_WAIT_SECONDS
from worker.pipeline import Pipeline


class MemoryQueue:
    """Stands in for the queue. `sent` is the number of messages so far."""

    is_available = True

    def __init__(self) -> None:
        self.messages: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.sent = 0

    def wake(self, route: str, count: int) -> bool:
        if count > 0:
            self.sent += 1
            self.messages.put(count)
        return True

    def length(self, route: str = "") -> int:
        return self.messages.qsize()


class Provider:
    """A generator that counts the requests which run at a time.

    Args:
        capacity: More at a time are refused. None: any number.
        refusal: Makes the error of a refusal.
        answering: What a request does until it is answered.
    """

    name, max_batch_size = "provider", 1

    def __init__(
        self,
        answering: Callable[[], object],
        *,
        capacity: int | None = None,
        refusal: Callable[[], ProviderError] | None = None,
    ) -> None:
        self._answering, self.capacity, self._refusal = answering, capacity, refusal
        self._lock = threading.Lock()
        self.running = self.most = self.answered = self.refused = 0
        self.texts: list[str] = []  #: of the prompts that it began to answer
        self.seconds = 0.0  #: the running requests, integrated over time
        self._changed_at = time.monotonic()

    def generate(self, request: GenerationRequest) -> Iterator[str]:
        with self._lock:
            if self.capacity is not None and self.running >= self.capacity:
                self.refused += 1
                assert self._refusal is not None
                raise self._refusal()
            self._add(1)
            self.texts.append(request.prompt_text)
        try:
            self._answering()
            yield "the answer"
        finally:
            with self._lock:
                self._add(-1)
                self.answered += 1

    def _add(self, change: int) -> None:
        now = time.monotonic()
        self.seconds += self.running * (now - self._changed_at)
        self._changed_at = now
        self.running += change
        self.most = max(self.most, self.running)


@contextmanager
def working(pipelines: Sequence[Pipeline], threads: int) -> Iterator[None]:
    """Let each of the pipelines, which share a queue, answer prompts with this many threads during the block."""

    def work(pipeline: Pipeline, messages: queue.SimpleQueue[int | None]) -> None:
        while (count := messages.get()) is not None:
            pipeline.process(count)

    shared = pipelines[0].queue
    assert isinstance(shared, MemoryQueue)
    running = [
        threading.Thread(target=work, args=(pipeline, shared.messages), daemon=True)
        for pipeline in pipelines
        for _ in range(threads)
    ]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        for _ in running:
            shared.messages.put(None)
        for thread in running:
            thread.join(MAX_WAIT_SECONDS)


def with_provider(
    worker: Pipeline, messages: MemoryQueue, provider: Provider, *, ceiling: int | None = None
) -> Pipeline:
    """The pipeline on this queue, with this provider and ceiling."""
    status = replace(worker.provider_status, queue=messages, ceiling=ceiling)  # type: ignore[arg-type]
    return replace(worker, generator=provider, queue=messages, provider_status=status, ceiling=ceiling)  # type: ignore[arg-type]


@contextmanager
def answering(worker: Pipeline, *, at_once: int = 1) -> Iterator[None]:
    """Answer prompts within the block, from another thread."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.01):
            worker.process(at_once)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(MAX_WAIT_SECONDS)
