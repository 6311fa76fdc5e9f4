"""Vectors, vector logs written without a worker, and an exact search to compare with."""

import numpy as np
import pytest
from sqlalchemy import delete, insert, text

from shared.db.engine import Sessions
from shared.db.models import Prompt, User, VectorLogEntry
from shared.prompts import feed
from shared.providers import Embedder, Vectors
from shared.providers.hashing import HashingEmbedder
from shared.search.store import EmbedQuery

EMBEDDER = HashingEmbedder()
#: Runs a test with each store.
EACH_STORE = pytest.mark.parametrize("vector_store", ["faiss", "pgvector"])


def random_vectors(count: int, seed: int = 1, dimension: int = EMBEDDER.dimension) -> Vectors:
    """Random vectors of unit length, shape (count, dimension)."""
    return unit(np.random.default_rng(seed).standard_normal((count, dimension)))


def clustered_vectors(count: int, seed: int = 1, *, clusters: int = 50, noise: float = 0.5) -> Vectors:
    """Random vectors of unit length around some centres, shape (count, dimension)."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((clusters, EMBEDDER.dimension))
    vectors = centres[random.integers(clusters, size=count)] + noise * random.standard_normal((count, 384))
    return unit(vectors)


def unit(vectors) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f4")


def fixed_query(vector: Vectors) -> EmbedQuery:
    """Return a query with this vector, whatever the embedder."""
    return lambda _: vector


def exact_distances(vectors: Vectors, query: Vectors, k: int) -> list[float]:
    """Return the squared L2 distances of the `k` nearest."""
    return np.sort(np.square(vectors - query).sum(axis=1))[:k].tolist()


def add_completed(
    sessions: Sessions,
    user_id: int,
    texts: list[str],
    *,
    answers: list[str] | None = None,
    embedder: Embedder = EMBEDDER,
) -> list[int]:
    """Store completed prompts and their vectors for a user who has none. Returns the prompts' ids."""
    answers = answers or ["A"] * len(texts)
    prompt = {
        "user_id": user_id,
        "websocket": False,
        "request_id": "r",
        "attempt_limit": 5,
        "status": "completed",
        "completed_at": text("now()"),
    }
    vector = {"user_id": user_id, "embedder": embedder.name}
    numbered = list(enumerate(texts, 1))
    prompts = [
        {"prompt_text": each, "response_text": answer, "seq": seq}
        for (seq, each), answer in zip(numbered, answers, strict=True)
    ]
    vectors = embedder.embed(texts)
    with sessions.begin() as session:
        insertion = insert(Prompt).values(prompt).returning(Prompt.id, sort_by_parameter_order=True)
        ids = list(session.scalars(insertion, prompts))
        rows = [
            vector | {"seq": seq, "prompt_id": prompt_id, "vector": embedded.tobytes()}
            for (seq, _), prompt_id, embedded in zip(numbered, ids, vectors, strict=True)
        ]
        session.execute(insert(VectorLogEntry), rows)
        user = text("UPDATE users SET seq = :seq, embedder = :embedder WHERE id = :id")
        session.execute(user, {"seq": len(texts), "embedder": embedder.name, "id": user_id})
    return ids


class SmallEmbedder:
    """An embedder of few dimensions. A text is a number, which seeds its vector."""

    def __init__(self, name: str = "small", dimension: int = 24) -> None:
        self.name = name
        self.dimension = dimension
        self.is_remote = False

    def embed(self, texts) -> Vectors:
        seeds = [[int(each), self.dimension] for each in texts]
        return unit(np.array([np.random.default_rng(seed).standard_normal(self.dimension) for seed in seeds]))


class Log:
    """A new user's vector log, written as completions and deletions write it. Prompt ids start at `first`."""

    def __init__(self, sessions: Sessions, username: str, embedder: str = "small", *, first: int | None = None) -> None:
        self._sessions = sessions
        self.embedder = embedder
        with sessions.begin() as session:
            values = {"username": username, "password_hash": "x"}
            self.user_id: int = session.scalar(insert(User).values(values).returning(User.id))
        self._first = first or 1_000_000 * self.user_id + 1
        self._count = 0

    def add(self, vectors: Vectors) -> list[int]:
        """Add vectors in one transaction. Returns the prompts' ids."""
        return self.add_stored([vector.astype("<f4").tobytes() for vector in vectors])

    def add_stored(self, stored: list[bytes]) -> list[int]:
        """Add vectors in their stored form. Returns the prompts' ids."""
        with self._sessions.begin() as session:
            sql = "UPDATE users SET seq = seq + :count, embedder = :embedder WHERE id = :id RETURNING seq"
            values = {"count": len(stored), "embedder": self.embedder, "id": self.user_id}
            seq = session.execute(text(sql), values).scalar_one() - len(stored)
            ids = [self._first + self._count + i for i in range(len(stored))]
            self._count += len(stored)
            row = {"user_id": self.user_id, "embedder": self.embedder}
            rows = [
                row | {"seq": seq + 1 + i, "prompt_id": prompt_id, "vector": vector}
                for i, (prompt_id, vector) in enumerate(zip(ids, stored, strict=True))
            ]
            session.execute(insert(VectorLogEntry), rows)
        return ids

    def delete(self, prompt_id: int) -> None:
        log = VectorLogEntry
        with self._sessions.begin() as session:
            seq = feed.advance(session, self.user_id)
            session.execute(delete(log).where(log.user_id == self.user_id, log.prompt_id == prompt_id))
            session.execute(insert(log).values(user_id=self.user_id, seq=seq, prompt_id=prompt_id))

    def reindex(self, name: str, vectors: Vectors) -> None:
        """Replace all vectors by those of another embedder, in order of the log."""
        log = VectorLogEntry
        with self._sessions.begin() as session:
            wanted = (log.user_id == self.user_id, log.embedder != "")
            rows = session.execute(delete(log).where(*wanted).returning(log.seq, log.prompt_id)).all()
            session.execute(
                insert(log),
                [
                    {
                        "user_id": self.user_id,
                        "seq": seq,
                        "prompt_id": prompt_id,
                        "embedder": name,
                        "vector": v.tobytes(),
                    }
                    for (seq, prompt_id), v in zip(sorted(rows), vectors, strict=True)
                ],
            )
            sql = "UPDATE users SET embedder = :name, index_version = index_version + 1 WHERE id = :id"
            session.execute(text(sql), {"name": name, "id": self.user_id})
        self.embedder = name
