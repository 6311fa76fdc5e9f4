"""The store of vectors that VECTOR_STORE names."""

from sqlalchemy import Engine

from shared.database import Sessions
from shared.providers import Embedders
from shared.queue import Queue
from shared.search.faiss_store import FaissStore
from shared.search.hnsw import HnswBuilder
from shared.search.loader import Loader
from shared.search.pgvector import PgvectorStore
from shared.search.sealing import Sealer
from shared.search.segments import Segments
from shared.search.store import Offload, Upkeep, VectorStore, in_place
from shared.settings import Settings


def make_store(
    settings: Settings,
    sessions: Sessions,
    reading: Engine,
    embedders: Embedders,
    queue: Queue,
    *,
    offload: Offload = in_place,
) -> VectorStore:
    """The store of this process.

    Args:
        reading: An engine in autocommit.
    """
    if settings.vector_store == "pgvector":
        return PgvectorStore(sessions, reading, embedders, ask_to_index=queue.ask_to_seal, offload=offload)
    segments = Segments(settings.segments_url)
    loader = Loader(sessions, reading, embedders, segments, offload=offload, on_damage=queue.ask_to_seal)
    return FaissStore(
        loader,
        memory_mib=settings.search_memory_mib,
        seal_from=settings.seal_from_vectors,
        ask_to_seal=queue.ask_to_seal,
        offload=offload,
    )


def make_upkeep(settings: Settings, sessions: Sessions, embedders: Embedders) -> Upkeep:
    """What a worker does for that store."""
    if settings.vector_store == "pgvector":
        return HnswBuilder(sessions, embedders)
    return Sealer(sessions, embedders, Segments(settings.segments_url), seal_from=settings.seal_from_vectors)
