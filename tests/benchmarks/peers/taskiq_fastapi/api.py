"""The application that uvicorn serves."""

import contextlib
from collections.abc import AsyncIterator

from sqlalchemy import insert

from tests.benchmarks.peers.fastapi_app import Stored, make_app
from tests.benchmarks.peers.taskiq_fastapi.database import prompts
from tests.benchmarks.peers.taskiq_fastapi.tasks import answer, broker, engine, redis

_SUBMIT = insert(prompts).returning(prompts.c.id, prompts.c.status, prompts.c.created_at)


@contextlib.asynccontextmanager
async def _queue() -> AsyncIterator[None]:
    await broker.startup()
    yield
    await broker.shutdown()


async def _store(user_id: int, prompt_text: str) -> Stored:
    values = {"user_id": user_id, "prompt_text": prompt_text}
    async with engine.connect() as connection:
        row = (await connection.execute(_SUBMIT, values)).one()
    await answer.kiq(row.id)
    return Stored(*row)


app = make_app(_store, _queue, redis)
