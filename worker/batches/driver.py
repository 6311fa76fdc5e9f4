"""The driver of batches: does their next steps, one batch after the other.

    validate the input file → store its lines → wait until they have ended → write the output files

It runs on every worker host, as the reaper does. A batch is leased for a step, and all of its state is in the database:
a step that was interrupted is repeated by any driver, or continued after the last group that was committed.
"""

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import TypeVar

import structlog
from sqlalchemy import Engine, func, select

from shared.accounts import budgets
from shared.accounts.budgets import Reservation
from shared.batches import batches, leases, progress, results, storing
from shared.batches.leases import BatchLease, LeaseLostError
from shared.batches.progress import Progress
from shared.batches.storing import LineLimits
from shared.db.engine import Sessions
from shared.db.models import BatchStatus, Prompt
from shared.messaging import announcements
from shared.messaging.announcements import Announcement, Announcer
from shared.messaging.queue import Queue
from shared.prompts import completion, scheduling
from shared.settings import Settings
from worker.batches.validation import InputFiles

log = structlog.get_logger(__name__)

#: How often a driver looks for a batch that waits for its next step.
INTERVAL_SECONDS = 0.5
#: How many lines a transaction stores, or cancels.
GROUP = 500
#: After this time other batches take their turn.
SLICE_SECONDS = 5.0
#: A lease is renewed after this share of it.
_RENEWED_AFTER = 1 / 4
#: The pause of a batch whose lines are being answered.
WAIT = timedelta(seconds=1)
_AT_ONCE = timedelta(0)
_EXPIRED = "The completion window of its batch was over."
_CANCELLED = "Its batch was cancelled."

_T = TypeVar("_T")


class BatchDriver:
    """Does the next steps of batches. Any number of drivers may run at once."""

    def __init__(
        self, settings: Settings, sessions: Sessions, autocommit_engine: Engine, queue: Queue, announcer: Announcer
    ) -> None:
        self._limits = LineLimits(settings.submit_grace, settings.max_attempts, settings.user_running_limit)
        self._lease = settings.lease
        self._monthly_tokens = settings.user_monthly_tokens
        self._sessions = sessions
        self._engine = autocommit_engine
        self._queue = queue
        self._announcer = announcer
        self._input = InputFiles(settings, autocommit_engine)

    def round(self) -> None:
        """Do the next step of each batch that waits for one."""
        deadline = time.monotonic() + SLICE_SECONDS
        while self.step() and time.monotonic() < deadline:
            pass

    def step(self) -> bool:
        """Do one step of the batch that has waited longest. Returns whether there was one."""
        with self._engine.connect() as connection:
            batch = leases.claim(connection, self._lease)
        if batch is None:
            return False
        try:
            pause = self._do(batch)
            with self._engine.connect() as connection:
                leases.release(connection, batch, pause)
        except LeaseLostError:
            log.info("batch taken by another driver or cancelled", batch_id=batch.id)
        return True

    def _do(self, batch: BatchLease) -> timedelta:
        """Do the next step. Returns the pause until the one after it."""
        if batch.status == BatchStatus.VALIDATING:
            return self._validate(batch)
        if batch.status == BatchStatus.IN_PROGRESS:
            return self._advance(batch)
        return self._finalize(batch)

    def _validate(self, batch: BatchLease) -> timedelta:
        # The last one has seen the whole file.
        (found,) = deque(self._renewing(batch, self._input.validate(batch)), maxlen=1)
        seq = None
        with self._sessions.begin() as session:
            scheduling.lock_users(session, [batch.user_id])
            errors = found.errors
            if not errors and found.reserved:
                wanted = Reservation(batch.user_id, batch.key_id, found.reserved)
                (exceeded,) = budgets.check(session, [wanted], self._monthly_tokens)
                errors = [_budget_error(exceeded)] if exceeded is not None else errors
            if errors:
                seq = batches.end(session, batch, BatchStatus.FAILED, errors=errors, completed_lines=0, failed_lines=0)
            else:
                changes = {"total_lines": found.lines, "reserved_tokens": found.reserved}
                status = BatchStatus.IN_PROGRESS
                batches.change(session, batch, status=status, in_progress_at=func.clock_timestamp(), **changes)
        log.info("batch validated", batch_id=batch.id, lines=found.lines, errors=len(errors))
        self._announce_end(batch, seq)
        return _AT_ONCE

    def _advance(self, batch: BatchLease) -> timedelta:
        """Store lines that are not stored, or look whether all have ended."""
        if batch.is_late:
            return self._begin_to_finalize(batch, expired_at=func.clock_timestamp())
        counted = self._count(batch)
        if batch.stored_lines < batch.total_lines:
            return self._store(batch)
        if not counted.unfinished:
            return self._begin_to_finalize(batch)
        if counted.reserved != batch.reserved_tokens:
            with self._sessions.begin() as session:
                batches.change(session, batch, reserved_tokens=counted.reserved)
        return WAIT

    def _count(self, batch: BatchLease) -> Progress:
        """Count the lines that have ended, and announce the progress."""
        with self._sessions.begin() as session:
            counted = progress.count(session, batch.id)
            is_new = progress.record(session, batch, counted)
        if is_new:
            event = announcements.from_progress(progress.event_data(batch, counted))
            self._announcer.announce((batch.user_id, event))
        return counted

    def _begin_to_finalize(self, batch: BatchLease, **changes: object) -> timedelta:
        with self._sessions.begin() as session:
            status, now = BatchStatus.FINALIZING, func.clock_timestamp()
            batches.change(session, batch, status=status, finalizing_at=now, **changes)
        return _AT_ONCE

    def _store(self, batch: BatchLease) -> timedelta:
        """Store lines, a group after the other, until all are stored or others take their turn.

        Workers are woken up only then: answering lines meanwhile would halve the rate of storing, and end no batch
        earlier.
        """
        deadline, stored = time.monotonic() + SLICE_SECONDS, batch.stored_lines
        lines = self._renewing(batch, self._input.next_lines(batch))
        messages: list[tuple[str, int]] = []  # a route, and how many of its lines
        try:
            while time.monotonic() < deadline and (group := list(islice(lines, GROUP))):
                with self._sessions.begin() as session:
                    columns = [each.line for each in group], [each.route for each in group], [e.reserved for e in group]
                    storing.store(session, batch, *columns, self._limits)
                messages += Counter(each.route for each in group).items()
                stored = group[-1].line.number
        finally:
            for route, count in messages:
                self._queue.wake(route, count)
        log.info("batch lines stored", batch_id=batch.id, stored=stored, total=batch.total_lines)
        return _AT_ONCE

    def _finalize(self, batch: BatchLease) -> timedelta:
        """End the lines that have not ended, if the batch is over, and write its files."""
        if batch.status == BatchStatus.CANCELLING:
            error, code, status = _CANCELLED, "batch_cancelled", BatchStatus.CANCELLED
        else:
            error, code = _EXPIRED, "batch_expired"
            status = BatchStatus.COMPLETED if batch.expired_at is None else BatchStatus.EXPIRED
        if status != BatchStatus.COMPLETED:
            while self._cancel_lines(batch, error):
                self._renew(batch)
        if self._count(batch).unfinished:  # its user has retried a line
            return WAIT
        self._write_files(batch, status, code)
        return _AT_ONCE

    def _write_files(self, batch: BatchLease, status: BatchStatus, unanswered: str) -> None:
        """Write the files, and end the batch, in one transaction: nobody sees one without the other."""
        with self._sessions.begin() as session:
            # A file that was not validated to its end may have lines that are not valid.
            lines = self._renewing(batch, self._input.lines(batch)) if batch.total_lines else ()
            written = results.write(session, batch, lines, unanswered)
            seq = batches.end(session, batch, status, **written._asdict())
        log.info("batch ended", batch_id=batch.id, status=status, completed=written.completed_lines)
        self._announce_end(batch, seq)

    def _cancel_lines(self, batch: BatchLease, error: str) -> int:
        """Cancel some of the prompts that have not ended. Returns how many."""
        unfinished = (Prompt.batch_id == batch.id, Prompt.due_at.is_not(None))
        wanted = select(*budgets.RESERVED).where(*unfinished).order_by(Prompt.id).limit(GROUP).with_for_update()
        with self._sessions.begin() as session:
            prompts = session.execute(wanted).all()
            finished = completion.cancel(session, prompts, error=error)
        self._announcer.announce(*((each.user_id, announcements.from_finished(each)) for each in finished))
        return len(prompts)

    def _renewing(self, batch: BatchLease, items: Iterable[_T]) -> Iterator[_T]:
        """The same items. While they are taken, the lease is renewed."""
        renewed, pause = time.monotonic(), self._lease.total_seconds() * _RENEWED_AFTER
        for item in items:
            if time.monotonic() > renewed + pause:
                renewed = time.monotonic()
                self._renew(batch)
            yield item

    def _renew(self, batch: BatchLease) -> None:
        with self._engine.connect() as connection:
            leases.renew(connection, batch, self._lease)

    def _announce_end(self, batch: BatchLease, seq: int | None) -> None:
        if seq is not None:
            self._announcer.announce((batch.user_id, Announcement(seq)))


def _budget_error(error: Exception) -> dict[str, str | int | None]:
    return {"code": "budget_exceeded", "message": str(error), "param": None, "line": None}
