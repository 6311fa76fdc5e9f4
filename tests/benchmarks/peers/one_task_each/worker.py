"""The worker's task: `celery -A tests.benchmarks.peers.one_task_each.worker worker`."""

import json
import os

from redis import Redis

from shared.providers.hashing import HashingEmbedder
from shared.providers.simulated import SimulatedGenerator
from tests.benchmarks.peers.one_task_each.database import CLAIM, COMPLETE, make_engine
from tests.benchmarks.peers.one_task_each.queue import ANSWER, CHANNEL_PREFIX, app

# Both connect on first use, which is in the forked process.
_engine = make_engine()
_redis = Redis.from_url(os.environ["PEER_REDIS_URL"])
_generator = SimulatedGenerator()
_embedder = HashingEmbedder()


@app.task(name=ANSWER)
def answer(prompt_id: int) -> None:
    """Answer a prompt, unless it is claimed already."""
    with _engine.connect() as connection:
        prompt = connection.exec_driver_sql(CLAIM, {"id": prompt_id}).one_or_none()
        if prompt is None:
            return
        response_text = _generator.answer(prompt.prompt_text)
        completed = {
            "id": prompt_id,
            "user_id": prompt.user_id,
            "response_text": response_text,
            "vector": _embedder.embed([prompt.prompt_text])[0].astype("<f4").tobytes(),
        }
        row = connection.exec_driver_sql(COMPLETE, completed).one()
    message = {
        "type": "prompt.completed",
        "seq": row.seq,
        "id": prompt_id,
        "prompt_text": prompt.prompt_text,
        "response_text": response_text,
        "completed_at": row.completed_at.isoformat(),
    }
    _redis.publish(f"{CHANNEL_PREFIX}{prompt.user_id}", json.dumps(message))
