"""What a task does."""

import json
import os

from redis import Redis

from shared.providers.hashing import HashingEmbedder
from shared.providers.simulated import SimulatedGenerator
from tests.benchmarks.peers.one_task_each.database import CLAIM, COMPLETE, make_engine


class Answering:
    """Answers prompts. It connects on first use, which is in the forked process."""

    def __init__(self) -> None:
        self._engine = make_engine()
        self._redis = Redis.from_url(os.environ["PEER_REDIS_URL"])
        self._generator = SimulatedGenerator()
        self._embedder = HashingEmbedder()

    def answer(self, prompt_id: int) -> None:
        """Answer a prompt, unless it is claimed already."""
        with self._engine.connect() as connection:
            prompt = connection.exec_driver_sql(CLAIM, {"id": prompt_id}).one_or_none()
            if prompt is None:
                return
            response_text = self._generator.answer(prompt.prompt_text)
            completed = {
                "id": prompt_id,
                "user_id": prompt.user_id,
                "response_text": response_text,
                "vector": self._embedder.embed([prompt.prompt_text])[0].astype("<f4").tobytes(),
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
        self._redis.publish(f"{os.environ['PEER_CHANNELS']}{prompt.user_id}", json.dumps(message))
