"""Writes the results of all endpoints, one transaction after the other."""

import asyncio
from functools import partial

import structlog

from shared.db.engine import Sessions, is_unavailable
from shared.webhooks import results
from shared.webhooks.results import EndpointState, Result
from worker.webhooks.daemon_threads import DaemonThreads
from worker.webhooks.outage_log import OutageLog

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0


class Recorder:
    """Records what is put into it, as soon as the transaction before is committed.

    Args:
        owner: The name under which this host has leased the endpoints.
    """

    def __init__(self, sessions: Sessions, owner: str, threads: DaemonThreads) -> None:
        self._sessions = sessions
        self._owner = owner
        self._threads = threads
        self._results: list[Result] = []
        self._states: dict[int, EndpointState] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._is_needed = asyncio.Event()
        self._outage = OutageLog("webhook results not recorded yet")

    def put(self, result: Result) -> None:
        """Record an attempt at a delivery."""
        self._results.append(result)
        self._is_needed.set()

    def put_state(self, webhook_id: int, state: EndpointState) -> None:
        """Record the state of an endpoint, together with the results that were put before. The newest one counts."""
        self._states[webhook_id] = state
        self._is_needed.set()

    async def flushed(self) -> None:
        """Wait until everything that was put before is written."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append(written)
        self._is_needed.set()
        await written

    async def run(self) -> None:
        """Write until it is cancelled."""
        while True:
            await self._is_needed.wait()
            self._is_needed.clear()
            written, self._results = self._results, []
            states, self._states = self._states, {}
            waiting, self._waiting = self._waiting, []
            await self._write(written, states)
            for each in waiting:
                if not each.done():  # its endpoint may have been cancelled
                    each.set_result(None)

    async def _write(self, written: list[Result], states: dict[int, EndpointState]) -> None:
        """Write until PostgreSQL accepts it. If it never does, the leases lapse, and the deliveries are sent again."""
        while True:
            try:
                await self._threads.run(partial(self._record, written, states))
                return
            except RuntimeError:  # the machine has no more threads
                log.exception("webhook results not recorded yet")
            except Exception as error:
                if not is_unavailable(error):
                    log.exception("webhook results not recorded")
                    return
                self._outage.failed(error)
            await asyncio.sleep(_RETRY_SECONDS)

    def _record(self, written: list[Result], states: dict[int, EndpointState]) -> None:
        with self._sessions.begin() as session:
            results.record(session, self._owner, written, states)
