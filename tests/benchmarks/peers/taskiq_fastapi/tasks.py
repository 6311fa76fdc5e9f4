"""The queue and the worker's task: `taskiq worker tests.benchmarks.peers.taskiq_fastapi.tasks:broker`."""

import os

import orjson
from redis.asyncio import Redis
from sqlalchemy import bindparam, func, select, update
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisStreamBroker

from shared.providers.hashing import HashingEmbedder
from shared.providers.simulated import SimulatedGenerator
from tests.benchmarks.peers.taskiq_fastapi.database import make_engine, prompts

#: About how many messages the stream keeps; finished ones are not deleted individually.
_STREAM_LENGTH = 100_000

broker = RedisStreamBroker(os.environ["PEER_REDIS_URL"], queue_name="prompts", maxlen=_STREAM_LENGTH).with_serializer(
    ORJSONSerializer()
)
engine = make_engine()
redis = Redis.from_url(os.environ["PEER_REDIS_URL"])
_generator = SimulatedGenerator()
_embedder = HashingEmbedder()

# Built once, because building the statements costs more than sending them.
_READ = select(prompts.c.user_id, prompts.c.prompt_text).where(prompts.c.id == bindparam("prompt_id"))
_COMPLETE = (
    update(prompts)
    .where(prompts.c.id == bindparam("prompt_id"), prompts.c.status == "queued")
    .values(
        response_text=bindparam("response"),
        embedding=bindparam("vector"),
        status="completed",
        completed_at=func.now(),
    )
    .returning(prompts.c.completed_at)
)


@broker.task
async def answer(prompt_id: int) -> None:
    """Answer a prompt, unless it is answered already."""
    async with engine.connect() as connection:
        prompt = (await connection.execute(_READ, {"prompt_id": prompt_id})).one()
        response_text = _generator.answer(prompt.prompt_text)
        vector = _embedder.embed([prompt.prompt_text])[0].astype("<f4").tobytes()
        completed = await connection.execute(
            _COMPLETE, {"prompt_id": prompt_id, "response": response_text, "vector": vector}
        )
        row = completed.one_or_none()
    if row is not None:
        message = {
            "type": "prompt.completed",
            "id": prompt_id,
            "prompt_text": prompt.prompt_text,
            "response_text": response_text,
            "completed_at": row.completed_at,
        }
        await redis.publish(f"{os.environ['PEER_CHANNELS']}{prompt.user_id}", orjson.dumps(message))
