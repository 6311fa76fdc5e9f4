"""The attempts of this process: renewing their leases, and interrupting them.

One thread does it for all of them. An attempt is interrupted when its claim is lost (its prompt was cancelled, deleted
or claimed by another worker), when its time is up, and when the worker must stop.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.db.engine import Sessions, cause
from shared.prompts import claims
from shared.prompts.claims import Claim
from shared.providers import interruption
from shared.providers.interruption import Interruption
from worker.async_exception import AsyncException

log = structlog.get_logger(__name__)

RENEWALS_PER_LEASE = 3
#: How often the claims are checked. So the connection to a silent provider closes at most this long after a cancel.
CHECK_SECONDS = 0.5
INTERRUPTION_TIMEOUT = timedelta(seconds=2)

Key = tuple[int, int]


class ClaimLostError(Exception):
    """The prompt was cancelled, deleted or claimed by another worker while this one worked on it."""


class WorkerStopping(SystemExit):
    """The worker must stop before the attempt has ended. Only the handler of the signal and `Leases.stop` raise it."""


@dataclass
class _Attempt:
    deadline: float  #: as all times here by time.monotonic()
    interruption: Interruption = field(default_factory=Interruption)
    interrupted_at: float = float("inf")
    is_stuck: bool = False
    #: For code that ignores the interruption.
    exception: AsyncException = field(default_factory=lambda: AsyncException(SoftTimeLimitExceeded))

    def interrupt(self, reason: type[BaseException]) -> None:
        self.interrupted_at = min(self.interrupted_at, time.monotonic())
        self.interruption.set(reason())

    @property
    def is_lost(self) -> bool:
        return isinstance(self.interruption.reason, ClaimLostError)


class Leases:
    """Renews the leases of claims, and interrupts their attempts.

    Args:
        time_limit: After this time an attempt is interrupted. None in a pool of processes, where Celery does it.
        interruption_timeout: How long the code of an interrupted attempt may go on before an exception is raised within
            it. An attempt that runs twice as long after its time was up is stuck: nothing else can run in its thread.
            Its lease is no longer renewed, so another worker tries the prompt, as often as MAX_ATTEMPTS says.
        max_stuck: How many attempts may be stuck.
        on_stuck: Called when more are stuck.
    """

    def __init__(
        self,
        sessions: Sessions,
        lease: timedelta,
        *,
        time_limit: timedelta | None = None,
        interruption_timeout: timedelta = INTERRUPTION_TIMEOUT,
        max_stuck: int = 0,
        on_stuck: Callable[[], object] = lambda: None,
    ) -> None:
        self._sessions = sessions
        self._lease = lease
        self._time_limit = float("inf") if time_limit is None else time_limit.total_seconds()
        self._interruption_timeout = interruption_timeout.total_seconds()
        self._max_stuck = max_stuck
        self._on_stuck = on_stuck
        self._attempts: dict[Key, _Attempt] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        #: Whether the worker must stop.
        self.is_stopping = False

    @contextmanager
    def hold(self, held: Sequence[Claim]) -> Iterator[None]:
        """Renew the leases of these claims, and interrupt their attempts if necessary, while the block runs."""
        deadline = time.monotonic() + self._time_limit
        attempts = {_key(claim): _Attempt(deadline) for claim in held}
        with self._lock:
            self._attempts.update(attempts)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="leases", daemon=True)
                self._thread.start()
        if self.is_stopping:
            for attempt in attempts.values():
                attempt.interrupt(WorkerStopping)
        try:
            yield
        finally:
            with self._lock:
                for key in attempts:
                    self._attempts.pop(key, None)

    @contextmanager
    def running(self, claim: Claim) -> Iterator[Interruption]:
        """Make what this thread does for the claim within the block interruptible. The claim is one of `hold`.

        Raises:
            ClaimLostError, SoftTimeLimitExceeded, WorkerStopping: the attempt was interrupted. These replace any
                other exception, because that may be a consequence of the interruption.
        """
        with self._lock:
            attempt = self._attempts[_key(claim)]
        with interruption.attached(attempt.interruption), attempt.exception.deliverable():
            attempt.interruption.check()
            try:
                yield attempt.interruption
            except Exception as error:
                if attempt.interruption.reason not in (None, error):
                    raise attempt.interruption.reason from error
                raise

    def stop(self) -> None:
        """Interrupt all attempts, and each that begins from now on, because the worker must stop."""
        self.is_stopping = True
        for attempt in self._snapshot().values():
            attempt.interrupt(WorkerStopping)

    def renew(self) -> None:
        """Renew all leases once, and interrupt the attempts whose claims are lost."""
        self._interrupt_lost(lambda session, keys: claims.renew(session, keys, self._lease))

    def check(self) -> None:
        """Interrupt the attempts whose claims are lost."""
        self._interrupt_lost(claims.still_held)

    def _interrupt_lost(self, find_held: Callable[[Session, Sequence[Key]], set[Key]]) -> None:
        attempts = {
            key: attempt for key, attempt in self._snapshot().items() if not (attempt.is_lost or attempt.is_stuck)
        }
        if not attempts:
            return
        try:
            with self._sessions.begin() as session:
                held = find_held(session, list(attempts))
        except SQLAlchemyError as error:
            log.warning("leases not renewed", error=cause(error))
            return
        for key in attempts.keys() - held:
            attempts[key].interrupt(ClaimLostError)

    def _snapshot(self) -> dict[Key, _Attempt]:
        with self._lock:
            return dict(self._attempts)

    def _enforce(self) -> None:
        """Interrupt the attempts whose time is up, and raise an exception in those that ignore an interruption."""
        if self._time_limit == float("inf"):
            return
        attempts = self._snapshot()
        for key, attempt in attempts.items():
            now = time.monotonic()
            if now >= attempt.deadline:
                attempt.interrupt(SoftTimeLimitExceeded)
            if now >= attempt.deadline + 2 * self._interruption_timeout and attempt.exception.is_ignored:
                if not attempt.is_stuck:
                    log.error("thread stuck, its prompt is left to other workers", prompt_id=key[0])
                attempt.is_stuck = True
            elif now >= attempt.interrupted_at + self._interruption_timeout:
                attempt.exception.deliver()
        if sum(attempt.is_stuck for attempt in attempts.values()) > self._max_stuck:
            self._on_stuck()

    def _watch(self) -> None:
        pause, interval = threading.Event(), self._lease.total_seconds() / RENEWALS_PER_LEASE
        renewed = time.monotonic()
        while not pause.wait(min(interval, CHECK_SECONDS)):
            try:
                if time.monotonic() - renewed >= interval:
                    renewed = time.monotonic()
                    self.renew()
                else:
                    self.check()
                self._enforce()
            except Exception:  # without this thread all leases would lapse
                log.exception("leases not watched")


def _key(claim: Claim) -> Key:
    return claim.id, claim.attempt
