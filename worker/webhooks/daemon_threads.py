"""Running blocking functions for an asyncio loop."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")


class DaemonThreads:
    """Runs functions in at most `limit` threads at a time.

    `asyncio.to_thread` would do, but the interpreter waits for its threads at the end, and a look-up of a name, or a
    statement, may hang. A thread costs some 50 µs.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._free = asyncio.Semaphore(limit)

    async def run(self, function: Callable[[], Result]) -> Result:
        """Run a function. If the caller is cancelled, the function continues, and keeps its place until it returns.

        Raises:
            RuntimeError: the system has no more threads.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Result] = loop.create_future()

        def finish(result: Result | None, error: BaseException | None) -> None:
            self._free.release()
            if outcome.done():
                return
            if error is None:
                outcome.set_result(result)  # type: ignore[arg-type]  # there is a result if there is no error
            else:
                outcome.set_exception(error)

        def work() -> None:
            result, error = None, None
            try:
                result = function()
            except Exception as caught:
                error = caught
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(finish, result, error)

        try:
            threading.Thread(target=work, name=self._name, daemon=True).start()
        except RuntimeError:
            self._free.release()
            raise
        return await outcome
