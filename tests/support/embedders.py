"""An embedder that fails on demand, and processes that use it."""

import dataclasses
from collections.abc import Callable, Sequence

from flask import Flask
from sqlalchemy import Engine, text

from api.app import create_app
from api.services import Services as ApiServices
from shared.db.engine import Sessions
from shared.errors import ProviderUnavailableError
from shared.providers import Embedders, Vectors
from shared.providers.hashing import HashingEmbedder
from shared.search.factory import make_store
from shared.search.late_embedding import LateEmbedding
from shared.settings import Settings
from worker.embedder_pause import EmbedderPause
from worker.missing_vectors import MissingVectors
from worker.services import Services as WorkerServices

AWAY = ProviderUnavailableError("The embedder could not be reached.")


class Moody(HashingEmbedder):
    """The hashing embedder, which fails on demand.

    `raised` is what it raises for all texts, or for those in `refused`. `returned` is what it returns instead of
    vectors. `during` is called in the next call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.raised: Exception | None = None
        self.refused: dict[str, Exception] = {}
        self.returned: object = None
        self.during: Callable[[], object] | None = None
        self.calls: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(list(texts))
        if self.raised is not None:
            raise self.raised
        for each in texts:
            if each in self.refused:
                raise self.refused[each]
        during, self.during = self.during, None
        if during is not None:
            during()
        return super().embed(texts) if self.returned is None else self.returned  # type: ignore[return-value]

    def recover(self) -> None:
        self.raised, self.returned, self.refused = None, None, {}


class Worker:
    """A worker process with these embedders. Its pauses are over when `pauses_end` is called."""

    def __init__(self, services: WorkerServices, embedders: Embedders, **changes: object) -> None:
        self.requests = 0
        self._now = 0.0
        pipeline = services.pipeline
        pause = EmbedderPause(self._request, lambda: self._now)
        self.pipeline = dataclasses.replace(pipeline, embedders=embedders, embedder_pause=pause, **changes)
        self.store = pipeline.store
        self.sessions = pipeline.sessions
        late = LateEmbedding(self.sessions, embedders, pipeline.store)
        self._missing = MissingVectors(self.sessions, embedders, late, pause, self._request)

    def _request(self) -> None:
        self.requests += 1

    def process(self, count: int = 1) -> None:
        self.pipeline.process(count)

    def embed_due(self) -> int:
        return self._missing.embed_due()

    def pauses_end(self) -> None:
        """Let the pause of the embedder be over, and what was postponed be due."""
        self._now += 3_600
        make_due(self.sessions)


def make_due(sessions: Sessions) -> None:
    """Let all missing vectors be due, but for those that were given up."""
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET vector_due_at = now() WHERE vector_due_at < 'infinity'"))


def app_with(settings: Settings, services: ApiServices, engine: Engine, embedders: Embedders) -> Flask:
    """The application of another API process, with these embedders."""
    sessions = services.sessions
    store = make_store(settings, sessions, engine, embedders, services.queue)
    late = LateEmbedding(sessions, embedders, store)
    return create_app(settings, dataclasses.replace(services, store=store, late_embedding=late))
