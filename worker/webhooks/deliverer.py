"""The thread that delivers: it leases endpoints that have something to deliver, and serves them concurrently."""

import asyncio
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar
from uuid import uuid4

import httpx
import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import Executor, Sessions
from shared.descriptor_limit import raise_descriptor_limit
from shared.webhooks import deliveries
from worker.webhooks.byte_budget import ByteBudget
from worker.webhooks.daemon_threads import DaemonThreads
from worker.webhooks.endpoint import Endpoint, Tools
from worker.webhooks.network import CheckedBackend, LookUp, look_up
from worker.webhooks.outage_log import OutageLog
from worker.webhooks.receiver import TIMEOUT_SECONDS
from worker.webhooks.recorder import Recorder

log = structlog.get_logger(__name__)
Value = TypeVar("Value")

MAX_ENDPOINTS = 2_000
#: How many endpoints at a time wait for their first events to be read. While a thousand that are down are due, one that
#: has just become due waits for no more than these.
MAX_STARTING = 50
#: A quarter of the places is kept for endpoints that have not failed.
RESERVED_SHARE = 4
#: How many bytes the events that are being sent may take.
MAX_BYTES = 256 * 2**20
#: File descriptors for everything else that the process does.
OTHER_DESCRIPTORS = 300
POLL_SECONDS = 0.5
#: How long requests in flight may take when the worker stops. The rest is released, and sent again by another host.
STOP_SECONDS = 2.0
_DATABASE_THREADS = 4


class Deliverer:
    """Delivers to webhooks, in a thread of its own.

    Args:
        allow_private: Whether webhooks may have private addresses.
        timeout: How many seconds a request may take.
        poll_seconds: How often to look for endpoints that have something to deliver.
        max_endpoints: How many to serve at a time, if the process may have as many connections.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        allow_private: bool,
        look_up: LookUp = look_up,
        tls: ssl.SSLContext | None = None,
        timeout: float = TIMEOUT_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        max_endpoints: int = MAX_ENDPOINTS,
    ) -> None:
        self._sessions = sessions
        self._allow_private = allow_private
        self._look_up = look_up
        self._timeout = timeout
        self._poll_seconds = poll_seconds
        self._tls = tls or httpx.create_ssl_context()
        self._owner = uuid4().hex
        descriptors = raise_descriptor_limit(max_endpoints + OTHER_DESCRIPTORS)
        self._max_endpoints = max(descriptors - OTHER_DESCRIPTORS, RESERVED_SHARE)
        self._endpoints: dict[int, asyncio.Task[None]] = {}
        self._starting: set[int] = set()
        self._has_room = asyncio.Event()
        self._outage = OutageLog("webhooks not read")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish or release what is in flight, within a few seconds."""
        if self._loop is None:
            return
        with suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(2 * STOP_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._deliver())
        except Exception:
            log.exception("webhook deliveries stopped")

    async def _deliver(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = DaemonThreads("webhook-database", _DATABASE_THREADS)
        recorder = Recorder(self._sessions, self._owner, self._threads)
        writing = asyncio.create_task(recorder.run())
        tools = Tools(
            read=self._read,
            recorder=recorder,
            memory=ByteBudget(MAX_BYTES),
            backend=CheckedBackend(allow_private=self._allow_private, look_up=self._look_up),
            tls=self._tls,
            timeout=self._timeout,
            is_stopping=self._stopping.is_set,
        )
        while not self._stopping.is_set():
            has_more = await self._serve(tools)
            with suppress(TimeoutError):
                waited = self._has_room if has_more else self._stopping
                await asyncio.wait_for(waited.wait(), self._poll_seconds)
        await self._finish(recorder)
        writing.cancel()

    async def _serve(self, tools: Tools) -> bool:
        """Lease endpoints, and begin to deliver to them. Returns whether more may be due."""
        free, reserved = self._max_endpoints - len(self._endpoints), self._max_endpoints // RESERVED_SHARE
        only_healthy = free <= reserved
        limit = min(free if only_healthy else free - reserved, MAX_STARTING - len(self._starting))
        if not limit:
            return free > 0
        try:
            served = list(self._endpoints)
            claim = partial(deliveries.claim, owner=self._owner, limit=limit, only_healthy=only_healthy, served=served)
            claimed = await self._execute(claim)
        except SQLAlchemyError as error:
            self._outage.failed(error)
            return False
        except Exception:  # such as a lack of threads
            log.exception("webhooks not read")
            return False
        for webhook_id in claimed:
            self._starting.add(webhook_id)
            self._endpoints[webhook_id] = asyncio.create_task(self._serve_one(webhook_id, tools))
        self._has_room.clear()
        return len(claimed) == limit

    async def _read(self, webhook_id: int, limit: int) -> deliveries.Batch | None:
        read = partial(deliveries.read, owner=self._owner, webhook_id=webhook_id, limit=limit)
        try:
            return await self._execute(read)
        finally:
            self._start_next(webhook_id)

    def _start_next(self, webhook_id: int) -> None:
        """Make room for endpoints that wait to be leased: this one has started, or failed to."""
        self._starting.discard(webhook_id)
        if len(self._starting) <= MAX_STARTING // 2:
            self._has_room.set()

    async def _serve_one(self, webhook_id: int, tools: Tools) -> None:
        try:
            await Endpoint(webhook_id, tools).run()
            await tools.recorder.flushed()  # what is written later must not count for the next lease
        except SQLAlchemyError as error:
            self._outage.failed(error)
        except Exception:
            log.exception("webhook deliveries interrupted", webhook_id=webhook_id)
        finally:
            self._start_next(webhook_id)
            del self._endpoints[webhook_id]

    async def _finish(self, recorder: Recorder) -> None:
        """Let requests in flight end, release the endpoints of the others, and write all results."""
        tasks = list(self._endpoints.values())
        if tasks:
            _, unfinished = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(recorder.flushed(), STOP_SECONDS)

    async def _execute(self, work: Callable[[Executor], Value]) -> Value:
        """Run a transaction in a thread."""
        return await self._threads.run(partial(self._transact, work))

    def _transact(self, work: Callable[[Executor], Value]) -> Value:
        with self._sessions.begin() as session:
            return work(session)
