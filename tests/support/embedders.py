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
from shared.search.prompt_search import PromptSearch
from shared.search.store import run_inline
from shared.search.vector_backfill import VectorBackfill
from shared.search.words.word_index import WordIndex
from shared.search.words.word_writer import WordWriter
from shared.settings import Settings
from worker.backfill_task import BackfillTask
from worker.embedder_pause import EmbedderPause
from worker.services import Services as WorkerServices

UNAVAILABLE = ProviderUnavailableError("The embedder could not be reached.")


class FlakyEmbedder(HashingEmbedder):
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
    """A worker process with these embedders. `end_pauses` ends the pauses of its embedders."""

    def __init__(self, services: WorkerServices, embedders: Embedders, **changes: object) -> None:
        self.requests = 0
        self._now = 0.0
        pipeline = services.pipeline
        pause = EmbedderPause(self._request, lambda: self._now)
        self.pipeline = dataclasses.replace(pipeline, embedders=embedders, embedder_pause=pause, **changes)
        self.store = pipeline.store
        self.sessions = pipeline.sessions
        backfill = VectorBackfill(self.sessions, embedders, pipeline.store)
        self._backfill_task = BackfillTask(self.sessions, embedders, backfill, pause, self._request)

    def _request(self) -> None:
        self.requests += 1

    def process(self, count: int = 1) -> None:
        self.pipeline.process(count)

    def embed_due(self) -> int:
        return self._backfill_task.embed_due()

    def end_pauses(self) -> None:
        """End the pauses of its embedders, and make all missing vectors due."""
        self._now += 3_600
        make_due(self.sessions)


def make_due(sessions: Sessions) -> None:
    """Make all missing vectors due, except those that were given up."""
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET vector_due_at = now() WHERE vector_due_at < 'infinity'"))


def app_with(settings: Settings, services: ApiServices, engine: Engine, embedders: Embedders) -> Flask:
    """The application of another API process, with these embedders."""
    sessions = services.sessions
    store = make_store(settings, sessions, engine, embedders, services.queue)
    backfill = VectorBackfill(sessions, embedders, store)
    words = WordIndex(WordWriter(sessions, run_inline), services.autocommit_engine)
    search = PromptSearch(store, words, backfill, services.autocommit_engine)
    return create_app(settings, dataclasses.replace(services, embedders=embedders, store=store, search=search))
