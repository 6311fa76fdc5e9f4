"""Contenders that are libraries in the searching process."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from shared.providers import Vectors
from tests.benchmarks.search.corpus import ID_STEP, Corpus, Owner, prompt_ids
from tests.benchmarks.search.data import DIMENSION, K

#: The parameters of graphs.
M, EF_CONSTRUCTION, EF = 16, 200, 200
THREADS = os.cpu_count() or 1


class OwnIndex:
    """An index of one user's vectors, without a filter."""

    def __init__(self, name: str, build: Callable[[Vectors], Callable[[Vectors], Any]], *, max_vectors: int) -> None:
        self.name = name
        self._build = build
        self._max_vectors = max_vectors
        self._search: Callable[[Vectors], Any] | None = None

    def skips(self, owner: Owner) -> str | None:
        return (
            f"building it for more than {self._max_vectors:,} vectors takes too long"
            if owner.size > self._max_vectors
            else None
        )

    def prepare(self, owner: Owner) -> None:
        self._search = None
        self._search = self._build(owner.data.vectors)

    def search(self, owner: Owner, query: Vectors) -> list[int]:
        positions = self._search(query.reshape(1, -1))
        return [owner.user_id * ID_STEP + int(position) for position in positions]


def flat(vectors: Vectors) -> Callable[[Vectors], Any]:
    index = faiss.IndexFlatL2(DIMENSION)
    index.add(vectors)
    return lambda query: index.search(query, K)[1][0]


def usearch_graph(vectors: Vectors) -> Callable[[Vectors], Any]:
    from usearch.index import Index

    index = Index(
        ndim=DIMENSION, metric="l2sq", dtype="f32", connectivity=M, expansion_add=EF_CONSTRUCTION, expansion_search=EF
    )
    index.add(np.arange(len(vectors)), vectors, threads=THREADS)
    return lambda query: index.search(query[0], K, threads=1).keys


def hnswlib_graph(vectors: Vectors) -> Callable[[Vectors], Any]:
    import hnswlib

    index = hnswlib.Index("l2", DIMENSION)
    index.init_index(len(vectors), M=M, ef_construction=EF_CONSTRUCTION, random_seed=1)
    index.add_items(vectors, num_threads=THREADS)
    index.set_ef(EF)
    index.set_num_threads(1)
    return lambda query: index.knn_query(query, K)[0][0]


class GlobalFlat:
    """One FAISS index of all users' vectors, with a filter for one user: as bits, or as a list."""

    def __init__(self, corpus: Corpus) -> None:
        self.index = faiss.IndexFlatL2(DIMENSION)
        self._ids = np.empty(corpus.total, np.int64)
        self._rows: dict[int, list[int]] = {}
        for user_id, first, vectors in corpus.all_blocks():
            rows = range(self.index.ntotal, self.index.ntotal + len(vectors))
            self._rows.setdefault(user_id, []).extend(rows)
            self._ids[rows.start : rows.stop] = prompt_ids(user_id, first, len(vectors))
            self.index.add(vectors)

    def searcher(self, owner: Owner, *, listed: bool) -> Callable[[Vectors], list[int]]:
        rows = np.array(self._rows[owner.user_id])
        if listed:
            selector = faiss.IDSelectorArray(rows)
        else:
            bits = np.zeros(self.index.ntotal, bool)
            bits[rows] = True
            selector = faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little"))
        parameters = faiss.SearchParameters(sel=selector)

        def search(query: Vectors) -> list[int]:
            (positions,) = self.index.search(query.reshape(1, -1), K, params=parameters)[1]
            return self._ids[positions].tolist()

        return search


class FilteredFlat:
    """`GlobalFlat` with one of its filters."""

    def __init__(self, shared: GlobalFlat, *, listed: bool) -> None:
        self.name = "FAISS flat of all, listed ids" if listed else "FAISS flat of all, id bitmap"
        self._shared, self._listed = shared, listed
        self._search: Callable[[Vectors], list[int]] | None = None

    def skips(self, _: Owner) -> str | None:
        return None

    def prepare(self, owner: Owner) -> None:
        self._search = self._shared.searcher(owner, listed=self._listed)

    def search(self, _: Owner, query: Vectors) -> list[int]:
        return self._search(query)


class Chroma:
    """A collection on disk of a part of the corpus, filtered by the user in the metadata."""

    name = "Chroma"
    _BATCH = 5_000

    def __init__(self, folder: Path, corpus: Corpus, total: int) -> None:
        import chromadb

        self._owners, others = corpus.graph_part(total)
        client = chromadb.PersistentClient(str(folder), chromadb.Settings(anonymized_telemetry=False))
        space = {"hnsw": {"space": "l2", "max_neighbors": M, "ef_construction": 100, "ef_search": 100}}  # its defaults
        self._collection = client.create_collection("prompts", configuration=space, embedding_function=None)
        for user_id, first, vectors in corpus.blocks(self._owners, others):
            ids = list(map(str, prompt_ids(user_id, first, len(vectors))))
            for start in range(0, len(ids), self._BATCH):
                some = slice(start, start + self._BATCH)
                count = len(ids[some])
                self._collection.add(ids[some], embeddings=vectors[some], metadatas=[{"user": user_id}] * count)

    def skips(self, owner: Owner) -> str | None:
        return None if owner in self._owners else "its graph is not built for so many vectors"

    def prepare(self, owner: Owner) -> None:
        self.search(owner, owner.data.queries[0])

    def search(self, owner: Owner, query: Vectors) -> list[int]:
        found = self._collection.query(query[None], n_results=K, where={"user": owner.user_id}, include=[])
        return list(map(int, found["ids"][0]))


class Lance:
    """A table on disk with a scalar index on the user and none on vectors, so that searches are exact."""

    name = "LanceDB"

    def __init__(self, folder: Path, corpus: Corpus) -> None:
        import lancedb
        import pyarrow as pa

        schema = pa.schema(
            [("user", pa.int64()), ("prompt", pa.int64()), ("vector", pa.list_(pa.float32(), DIMENSION))]
        )

        def batches() -> Any:
            for user_id, first, vectors in corpus.all_blocks():
                rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSION)
                columns = [pa.array([user_id] * len(vectors)), pa.array(prompt_ids(user_id, first, len(vectors))), rows]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)

        reader = pa.RecordBatchReader.from_batches(schema, batches())
        self._table = lancedb.connect(str(folder)).create_table("prompts", reader)
        self._table.create_scalar_index("user", index_type="BTREE")
        self._table.optimize()

    def skips(self, _: Owner) -> str | None:
        return None

    def prepare(self, owner: Owner) -> None:
        self.search(owner, owner.data.queries[0])

    def search(self, owner: Owner, query: Vectors) -> list[int]:
        found = (
            self._table.search(query)
            .where(f"user = {owner.user_id}", prefilter=True)
            .select(["prompt", "_distance"])
            .limit(K)
        )
        return found.to_arrow()["prompt"].to_pylist()
