"""The application that uvicorn serves."""

import contextlib
from collections.abc import AsyncIterator

from tests.benchmarks.peers.fastapi_app import Stored, make_app
from tests.benchmarks.peers.procrastinate_fastapi.database import SUBMIT
from tests.benchmarks.peers.procrastinate_fastapi.jobs import answer, make_pool, redis
from tests.benchmarks.peers.procrastinate_fastapi.jobs import app as procrastinate

_pool = make_pool()


@contextlib.asynccontextmanager
async def _queue() -> AsyncIterator[None]:
    async with procrastinate.open_async(), _pool:
        yield


async def _store(user_id: int, prompt_text: str) -> Stored:
    """Store the prompt and its job in one transaction."""
    async with _pool.connection() as connection:
        stored = Stored(*await (await connection.execute(SUBMIT, (user_id, prompt_text))).fetchone())
        await answer.configure(connection=connection).defer_async(prompt_id=stored.id)
    return stored


app = make_app(_store, _queue, redis)
