"""The queue and the worker's job, for `procrastinate worker`."""

import os

import orjson
from procrastinate import App, PsycopgConnector
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis

from shared.providers.hashing import HashingEmbedder
from shared.providers.simulated import SimulatedGenerator
from tests.benchmarks.peers.procrastinate_fastapi.database import COMPLETE, READ

POOL_SIZE = 20


async def _autocommit(connection: AsyncConnection) -> None:
    """No statement of the worker belongs with another, and each saves two round trips."""
    await connection.set_autocommit(True)


def make_pool(**options: object) -> AsyncConnectionPool:
    return AsyncConnectionPool(os.environ["PEER_DATABASE_URL"], max_size=POOL_SIZE, open=False, **options)  # type: ignore[arg-type]


app = App(connector=PsycopgConnector(conninfo=os.environ["PEER_DATABASE_URL"], max_size=POOL_SIZE))
redis = Redis.from_url(os.environ["PEER_REDIS_URL"])
_pool = make_pool(configure=_autocommit)
_generator = SimulatedGenerator()
_embedder = HashingEmbedder()


@app.task(queue="prompts")
async def answer(prompt_id: int) -> None:
    """Answer a prompt, unless it is answered already."""
    await _pool.open()  # does nothing if it is open
    async with _pool.connection() as connection:
        user_id, prompt_text = await (await connection.execute(READ, (prompt_id,))).fetchone()
        response_text = _generator.answer(prompt_text)
        vector = _embedder.embed([prompt_text])[0].astype("<f4").tobytes()
        row = await (await connection.execute(COMPLETE, (response_text, vector, prompt_id))).fetchone()
    if row is not None:
        message = {
            "type": "prompt.completed",
            "id": prompt_id,
            "prompt_text": prompt_text,
            "response_text": response_text,
            "completed_at": row[0],
        }
        await redis.publish(f"{os.environ['PEER_CHANNELS']}{user_id}", orjson.dumps(message))
