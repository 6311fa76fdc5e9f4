"""Creates the vector store that VECTOR_STORE names."""

from sqlalchemy import Engine

from shared.db.engine import Sessions
from shared.messaging.queue import Queue
from shared.providers import Embedders
from shared.search.faiss.faiss_store import FaissStore
from shared.search.faiss.loader import Loader
from shared.search.faiss.sealing import Sealer
from shared.search.faiss.segment_storage import SegmentStorage
from shared.search.pgvector.hnsw import HnswBuilder
from shared.search.pgvector.pgvector_store import PgvectorStore
from shared.search.store import Maintenance, Offload, VectorStore, run_inline
from shared.settings import Settings


def make_store(
    settings: Settings,
    sessions: Sessions,
    autocommit_engine: Engine,
    embedders: Embedders,
    queue: Queue,
    *,
    offload: Offload = run_inline,
) -> VectorStore:
    """Create the store of this process.

    Args:
        autocommit_engine: An engine in autocommit.
    """
    if settings.vector_store == "pgvector":
        return PgvectorStore(
            sessions, autocommit_engine, embedders, ask_to_index=queue.request_sealing, offload=offload
        )
    storage = SegmentStorage(settings.segments_url)
    loader = Loader(sessions, autocommit_engine, embedders, storage, offload=offload, on_damage=queue.request_sealing)
    return FaissStore(
        loader,
        memory_mib=settings.search_memory_mib,
        seal_from=settings.seal_from_vectors,
        ask_to_seal=queue.request_sealing,
        offload=offload,
    )


def make_maintenance(settings: Settings, sessions: Sessions, embedders: Embedders) -> Maintenance:
    """Create what a worker needs to maintain that store."""
    if settings.vector_store == "pgvector":
        return HnswBuilder(sessions, embedders)
    return Sealer(sessions, embedders, SegmentStorage(settings.segments_url), seal_from=settings.seal_from_vectors)
