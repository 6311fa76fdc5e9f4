"""Contenders whose vectors are in Postgres: ours, and pgvector."""

from typing import Any

from sqlalchemy import Engine

from shared.db.engine import Sessions, make_engine, make_sessions
from shared.providers import Embedders, Vectors
from shared.providers.factory import make_embedders
from shared.search.faiss.faiss_store import FaissStore
from shared.search.faiss.loader import Loader
from shared.search.faiss.sealing import Sealer
from shared.search.faiss.segment_storage import SegmentStorage
from shared.search.store import run_inline
from shared.settings import Settings
from tests.benchmarks.search.corpus import Corpus, Owner, as_text
from tests.benchmarks.search.data import K

MEMORY_MIB = 4_096


class Stores:
    """Creates stores as our processes have them. They share connections, which stay open."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engines: list[Engine] = []
        self.embedders: Embedders = make_embedders(settings)
        self.sessions: Sessions = make_sessions(self._connect())
        self._autocommit_engine = self._connect(autocommit=True)

    def make(self, *, memory_mib: int = MEMORY_MIB) -> FaissStore:
        storage = SegmentStorage(self._settings.segments_url)
        # Nothing is sealed during measurements: `seal` was called before.
        ignore = lambda _: None  # noqa: E731
        loader = Loader(
            self.sessions, self._autocommit_engine, self.embedders, storage, offload=run_inline, on_damage=ignore
        )
        return FaissStore(
            loader,
            memory_mib=memory_mib,
            seal_from=self._settings.seal_from_vectors,
            ask_to_seal=ignore,
            offload=run_inline,
        )

    def seal(self, user_id: int) -> int:
        """Seal the user's log as a worker does, if it is long enough. Returns the number of segments."""
        storage = SegmentStorage(self._settings.segments_url)
        return Sealer(self.sessions, self.embedders, storage, seal_from=self._settings.seal_from_vectors).seal(user_id)

    def close(self) -> None:
        for engine in self._engines:
            engine.dispose()

    def _connect(self, **options: Any) -> Engine:
        engine = make_engine(self._settings, application_name="benchmark", **options)
        self._engines.append(engine)
        return engine


class Ours:
    """A whole search in one of our processes, including the query that fetches what is new."""

    name = "ours"

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._store: FaissStore | None = None

    def skips(self, _: Owner) -> str | None:
        return None

    def prepare(self, owner: Owner) -> None:
        self._store = self._stores.make()
        self.search(owner, owner.data.queries[0])

    def search(self, owner: Owner, query: Vectors) -> list[int]:
        return [match.prompt_id for match in self._store.search(owner.user_id, lambda _: query, K).matches]


class PgvectorExact:
    """A narrow table with an index on the user: the plan is exact and reads only the user's rows."""

    name = "pgvector exact"
    _TABLE = "narrow"

    def __init__(self, cursor: Any, _: Corpus) -> None:
        self._cursor = cursor
        cursor.execute("SET max_parallel_workers_per_gather = 0")  # one thread, as the others have
        self._query = f"SELECT prompt_id FROM {self._TABLE} WHERE user_id = %s ORDER BY embedding <-> %s LIMIT {K}"  # noqa: S608

    def skips(self, _: Owner) -> str | None:
        return None

    def prepare(self, owner: Owner) -> None:
        self._cursor.execute("EXPLAIN " + self._query, (owner.user_id, as_text(owner.data.queries[0])))
        self.check("\n".join(row[0] for row in self._cursor.fetchall()))

    def check(self, plan: str) -> None:
        if "narrow_of_user" not in plan:
            raise RuntimeError(f"this is not the plan to measure:\n{plan}")

    def search(self, owner: Owner, query: Vectors) -> list[int]:
        self._cursor.execute(self._query, (owner.user_id, as_text(query)))
        return [row[0] for row in self._cursor.fetchall()]


class PgvectorGraph(PgvectorExact):
    """An HNSW index of all users, which is scanned until it has returned enough of the user's rows."""

    name = "pgvector HNSW"
    _TABLE = "graph"

    def __init__(self, cursor: Any, corpus: Corpus, total: int) -> None:
        super().__init__(cursor, corpus)
        self._owners, _ = corpus.graph_part(total)
        cursor.execute("SET hnsw.iterative_scan = strict_order")
        cursor.execute("SET hnsw.ef_search = 200")
        cursor.execute("SET enable_seqscan = off")  # which the planner prefers in a small table

    def skips(self, owner: Owner) -> str | None:
        return None if owner in self._owners else "the graph is not built for so many vectors"

    def check(self, plan: str) -> None:
        if "graph_embedding_idx" not in plan:
            raise RuntimeError(f"this is not the plan to measure:\n{plan}")
