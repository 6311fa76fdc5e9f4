"""The store in Postgres: its tables, and the HNSW indexes of large users."""

from collections.abc import Iterator

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from shared.db import migrations
from shared.db.engine import Sessions, make_engine
from shared.db.models import Base
from shared.providers import Embedders, Vectors
from shared.search.pgvector import pgvector_store, tables
from shared.search.pgvector.hnsw import HnswBuilder
from shared.search.pgvector.pgvector_store import PgvectorStore
from shared.settings import Settings, SettingsError
from tests.support.servers import Servers
from tests.support.vectors import Log, SmallEmbedder, unit

DIMENSION = 64
SMALL, OTHER = SmallEmbedder("small", DIMENSION), SmallEmbedder("other", 32)
EMBEDDERS = Embedders(SMALL, OTHER)
LARGE = 2_000


@pytest.fixture
def vector_store() -> str:
    return "pgvector"


@pytest.fixture
def index_requests() -> list[int]:
    """The users for whom an index was requested."""
    return []


@pytest.fixture
def store(settings: Settings, sessions: Sessions, index_requests: list[int]) -> Iterator[PgvectorStore]:
    autocommit_engine = make_engine(settings, application_name="test", autocommit=True)
    yield PgvectorStore(
        sessions,
        autocommit_engine,
        EMBEDDERS,
        ask_to_index=index_requests.append,
        offload=lambda function, *args: function(*args),
        hnsw_from=LARGE,
    )
    autocommit_engine.dispose()


@pytest.fixture
def builder(sessions: Sessions) -> HnswBuilder:
    return HnswBuilder(sessions, EMBEDDERS, hnsw_from=LARGE)


@pytest.fixture
def alice(sessions: Sessions) -> Log:
    return Log(sessions, "alice")


def clustered(count: int) -> Vectors:
    random = np.random.default_rng(count)
    centres = unit(np.random.default_rng(0).standard_normal((50, DIMENSION)))
    return unit(centres[random.integers(0, 50, count)] + 0.7 * unit(random.standard_normal((count, DIMENSION))))


def nearest(store: PgvectorStore, user: Log, vector: Vectors, k: int = 10) -> list[int]:
    return [match.prompt_id for match in store.search(user.user_id, lambda _: vector, k).matches]


def plan(engine: Engine, user: Log) -> str:
    """Return PostgreSQL's plan of a search."""
    sql = pgvector_store.search_sql(DIMENSION).replace("\nSELECT u.seq", "\nEXPLAIN SELECT u.seq")
    parameters = {"user_id": user.user_id, "vector": pgvector_store.literals(clustered(1))[0], "k": 10}
    with engine.connect() as connection:
        return "\n".join(connection.exec_driver_sql(sql, parameters).scalars())


def indexes(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        query = "SELECT indexname FROM pg_indexes WHERE tablename = 'pgvector_vectors' AND indexdef LIKE '%hnsw (%'"
        return set(connection.scalars(text(query)))


class TestLargeUsers:
    def test_a_users_index_finds_nearly_the_same_as_an_exact_search(
        self, store: PgvectorStore, builder: HnswBuilder, alice: Log, sessions: Sessions, engine: Engine, index_requests
    ) -> None:
        bob = Log(sessions, "bob")
        bob.add(clustered(300))
        alice.add(clustered(LARGE))
        queries = clustered(50)
        exact = [nearest(store, alice, query) for query in queries]
        assert nearest(store, bob, queries[0])
        assert "hnsw" not in plan(engine, alice)
        assert index_requests == [alice.user_id]

        assert [builder.seal(user.user_id) for user in (alice, bob)] == [1, 0]
        assert "hnsw" in plan(engine, alice)
        assert "hnsw" not in plan(engine, bob)
        found = [nearest(store, alice, query) for query in queries]
        assert all(len(each) == 10 for each in found)
        assert np.mean([len({*a} & {*b}) / 10 for a, b in zip(exact, found, strict=True)]) >= 0.95

    def test_a_search_among_some_prompts_compares_all_of_them_in_spite_of_an_index(
        self, store: PgvectorStore, builder: HnswBuilder, alice: Log
    ) -> None:
        vectors, query = clustered(LARGE), clustered(1)[0]
        added = alice.add(vectors)
        nearest(store, alice, query)
        assert builder.seal(alice.user_id) == 1
        order = np.argsort(np.square(vectors - query).sum(axis=1))
        farthest = [added[i] for i in order[-100:]]
        found = store.search(alice.user_id, lambda _: query, 100, allowed=farthest).matches
        assert [match.prompt_id for match in found] == farthest

    def test_an_index_follows_additions_and_deletions(
        self, store: PgvectorStore, builder: HnswBuilder, alice: Log
    ) -> None:
        added = alice.add(clustered(LARGE))
        nearest(store, alice, clustered(1)[0])
        builder.seal(alice.user_id)
        (new,) = alice.add(clustered(1))
        assert nearest(store, alice, clustered(1)[0], 1) == [new]
        for gone in (new, added[5]):
            alice.delete(gone)
            assert gone not in nearest(store, alice, clustered(1)[0], 100)
        assert len(nearest(store, alice, clustered(1)[0], LARGE - 1)) > 0.95 * LARGE

    def test_an_index_is_built_once_and_again_after_an_interrupted_build(
        self, store: PgvectorStore, builder: HnswBuilder, alice: Log, engine: Engine, index_requests
    ) -> None:
        alice.add(clustered(LARGE))
        nearest(store, alice, clustered(1)[0])
        assert [builder.seal(alice.user_id) for _ in range(2)] == [1, 0]
        with engine.begin() as connection:
            interrupt = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = :name ::regclass"
            connection.execute(text(interrupt), {"name": f"pgvector_hnsw_{alice.user_id}_{DIMENSION}"})
        assert [builder.seal(alice.user_id) for _ in range(2)] == [1, 0]
        alice.add(clustered(1))
        index_requests.clear()
        nearest(store, alice, clustered(1)[0])
        assert index_requests == []

    def test_another_embedder_has_another_index(
        self, store: PgvectorStore, builder: HnswBuilder, alice: Log, engine: Engine
    ) -> None:
        alice.add(clustered(LARGE))
        nearest(store, alice, clustered(1)[0])
        builder.seal(alice.user_id)
        alice.reindex("other", OTHER.embed(range(LARGE)))
        (match,) = store.search(alice.user_id, lambda embedder: embedder.embed(["7"])[0], 1).matches
        assert match.distance == pytest.approx(0, abs=1e-6)
        assert builder.seal(alice.user_id) == 1
        assert indexes(engine) == {f"pgvector_hnsw_{alice.user_id}_32"}
        assert len(nearest(store, alice, OTHER.embed(["7"])[0])) == 10

    def test_a_user_whose_rows_were_deleted_has_no_index_until_they_are_back(
        self, store: PgvectorStore, builder: HnswBuilder, alice: Log, engine: Engine, index_requests
    ) -> None:
        alice.add(clustered(LARGE))
        before = nearest(store, alice, clustered(1)[0])
        builder.seal(alice.user_id)
        store.forget(alice.user_id)
        assert builder.seal(alice.user_id) == 0
        assert indexes(engine) == set()
        assert nearest(store, alice, clustered(1)[0]) == before
        assert builder.seal(alice.user_id) == 1


class TestTables:
    @pytest.fixture
    def plain(self, servers: Servers) -> Iterator[Engine]:
        """A database that was migrated for the other store."""
        with servers.database("faiss") as name:
            engine = make_engine(servers.settings(name), application_name="test")
            yield engine
            engine.dispose()

    def test_migrating_creates_the_tables_and_migrating_again_keeps_them(self, plain: Engine) -> None:
        for _ in range(2):
            migrations.upgrade(plain, vector_store="pgvector")
        with plain.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM pgvector_vectors")) == 0

    def test_the_tables_are_not_among_the_models(self, engine: Engine) -> None:
        with engine.connect() as connection:
            names = {"include_name": lambda name, kind, _: not (kind == "table" and tables.is_ours(name))}
            context = MigrationContext.configure(connection, opts=names)
            assert compare_metadata(context, Base.metadata) == []

    def test_an_error_says_what_to_do_if_the_extension_may_not_be_created(self, plain: Engine) -> None:
        with plain.connect() as connection:
            connection.execute(text("CREATE ROLE modest"))
            connection.execute(text("SET LOCAL ROLE modest"))
            with pytest.raises(SettingsError, match="Have a superuser run CREATE EXTENSION vector"):
                tables.create_tables(connection)

    @pytest.mark.parametrize("version", [None, "0.7.4"])
    def test_an_error_says_what_to_do_if_the_extension_is_not_installed(self, version: str | None) -> None:
        with pytest.raises(SettingsError, match=f"{version or 'none'}. Install it there, or set VECTOR_STORE=faiss"):
            tables.check_version(version)
