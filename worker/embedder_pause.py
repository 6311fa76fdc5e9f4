"""Pausing calls of an embedder that does not work, so that each prompt does not wait for it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from shared.providers import Embedder

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 5.0
MAX_PAUSE_SECONDS = 60.0


@dataclass(slots=True)
class _Pause:
    """The pause of one embedder."""

    began_at: float
    ends_at: float
    seconds: float


class EmbedderPause:
    """Decides whether this process calls an embedder. Thread-safe.

    A failure that no text caused begins a pause. After it, one caller tries the embedder. Each further failure doubles
    the pause.

    Args:
        on_recovery: Called when an embedder works again.
        clock: Seconds that only rise.
    """

    def __init__(
        self, on_recovery: Callable[[], object] = lambda: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._on_recovery = on_recovery
        self._clock = clock
        self._pauses: dict[str, _Pause] = {}
        self._lock = threading.Lock()

    def try_call(self, embedder: Embedder) -> float | None:
        """Return when the call starts, for `record_failure`; None if the embedder must not be called."""
        with self._lock:
            now, pause = self._clock(), self._pauses.get(embedder.name)
            if pause is None:
                return now
            if now < pause.ends_at:
                return None
            pause.ends_at = now + pause.seconds  # the others wait for this caller's result
            return now

    def record_failure(self, embedder: Embedder, started_at: float, error: Exception) -> None:
        """Pause the embedder, unless the pause began after this call."""
        with self._lock:
            now, pause = self._clock(), self._pauses.get(embedder.name)
            if pause is not None and started_at < pause.began_at:
                return
            seconds = FIRST_PAUSE_SECONDS if pause is None else min(2 * pause.seconds, MAX_PAUSE_SECONDS)
            self._pauses[embedder.name] = _Pause(now, now + seconds, seconds)
        log.warning(
            "embedder unavailable, prompts are answered without a vector and get it later",
            embedder=embedder.name,
            error=type(error).__name__,
            detail=str(error),
            pause_seconds=seconds,
        )

    def record_success(self, embedder: Embedder) -> None:
        """End the pause."""
        if embedder.name not in self._pauses:
            return
        with self._lock:
            ended = self._pauses.pop(embedder.name, None)
        if ended is not None:
            log.info("embedder available again", embedder=embedder.name)
            self._on_recovery()
