"""A bound for the memory that the events of all endpoints take together."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class ByteBudget:
    """Bytes that the coroutines of one event loop share. One that wants more than is free waits."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._returned = asyncio.Event()

    @asynccontextmanager
    async def reserve(self, most: int) -> AsyncIterator[Callable[[int], None]]:
        """Reserve this many bytes for the block, which calls the result once it knows how many it needs."""
        while self._free < most:
            self._returned.clear()
            await self._returned.wait()
        self._free -= most
        reserved = most

        def keep(size: int) -> None:
            nonlocal reserved
            size = min(size, reserved)
            self._give(reserved - size)
            reserved = size

        try:
            yield keep
        finally:
            self._give(reserved)

    def _give(self, size: int) -> None:
        self._free += size
        self._returned.set()
