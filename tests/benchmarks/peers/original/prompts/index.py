"""The peer's search: one flat index of all users' prompts in this process, filled on first use."""

import hashlib
import logging
import threading

import faiss
import numpy as np
import numpy.typing as npt

from tests.benchmarks.peers.original.prompts.models import Prompt

logger = logging.getLogger(__name__)

DIMENSION = 384


def embed(text: str) -> npt.NDArray[np.float32]:
    """Return a unit vector of shape (384,), one hash of the text per number."""
    hashes = (hashlib.sha256(f"{text.lower()}_{i}".encode()).hexdigest() for i in range(DIMENSION))
    vector = np.array([int(each[:8], 16) / 0xFFFFFFFF * 2 - 1 for each in hashes], np.float32)
    return vector / np.linalg.norm(vector)


class GlobalIndex:
    """The vectors of all users' prompts."""

    def __init__(self) -> None:
        self._index: faiss.IndexFlatL2 | None = None
        self._ids: list[int] = []
        self._lock = threading.Lock()

    def fill(self) -> None:
        """Read the stored prompts, once. Call it before the first prompt is saved."""
        with self._lock:
            if self._index is not None:
                return
            self._index = faiss.IndexFlatL2(DIMENSION)
            for prompt in Prompt.objects.order_by("id").iterator():
                self._add(prompt.id, np.array(prompt.embedding, np.float32))
        logger.info("Index filled with %d prompts", len(self._ids))

    def add(self, prompt_id: int, vector: npt.NDArray[np.float32]) -> None:
        with self._lock:
            self._add(prompt_id, vector)

    def _add(self, prompt_id: int, vector: npt.NDArray[np.float32]) -> None:
        self._index.add(vector.reshape(1, -1))
        self._ids.append(prompt_id)

    def search(self, vector: npt.NDArray[np.float32], k: int) -> dict[int, float]:
        """Return the distances of the `k` nearest prompts of all users, by prompt id, nearest first."""
        self.fill()
        with self._lock:
            distances, positions = self._index.search(vector.reshape(1, -1), k)
        found = zip(positions[0].tolist(), distances[0].tolist(), strict=True)
        return {self._ids[position]: distance for position, distance in found if position >= 0}


index = GlobalIndex()
