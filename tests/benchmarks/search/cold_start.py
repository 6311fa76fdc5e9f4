"""Measures the first search of a store that has nothing in memory."""

import io
from typing import Any

import faiss
import numpy as np

from shared.providers import Vectors
from shared.settings import Settings
from tests.benchmarks.search import data
from tests.benchmarks.search.corpus import Owner, connected
from tests.benchmarks.search.figures import median, timed
from tests.benchmarks.search.in_postgres import Stores

TRIES = 7


def measure(stores: Stores, settings: Settings, owner: Owner) -> dict[str, float]:
    """Return the time of a first search, in microseconds per vector.

    It alternates with the alternative for a service that has only the log: read all of it by COPY BINARY into an array,
    and search that.
    """
    taken: dict[str, list[float]] = {"ours": [], "by COPY": []}
    with connected(settings) as cursor:
        stores.make().search(owner.user_id, lambda _: owner.data.queries[0], data.K)
        for query in owner.data.queries[:TRIES]:
            store = stores.make()
            taken["ours"].append(timed(lambda: store.search(owner.user_id, lambda _: query, data.K))[0])  # noqa: B023
            taken["by COPY"].append(timed(lambda: _search_by_copy(cursor, owner.user_id, query))[0])  # noqa: B023
    ratio = median([a / b for a, b in zip(taken["by COPY"], taken["ours"], strict=True)])
    each = {f"{name}, µs a vector": round(median(times) / owner.size * 1e6, 3) for name, times in taken.items()}
    return {**each, "ours, ms": round(median(taken["ours"]) * 1e3, 2), "COPY / ours": round(ratio, 2)}


def _search_by_copy(cursor: Any, user_id: int, query: Vectors) -> list[int]:
    file = io.BytesIO()
    rows = f"SELECT seq, prompt_id, vector FROM vector_log WHERE user_id = {user_id} ORDER BY seq"  # noqa: S608
    cursor.copy_expert(f"COPY ({rows}) TO STDOUT (FORMAT binary)", file)
    row = np.dtype(
        [("head", "V6"), ("seq", ">i8"), ("l1", "V4"), ("prompt", ">i8"), ("l2", "V4"), ("v", "<f4", (384,))]
    )
    table = np.frombuffer(file.getbuffer()[19:-2], row)
    vectors = np.ascontiguousarray(table["v"])
    _, positions = faiss.knn(query.reshape(1, -1), vectors, data.K)
    return table["prompt"][positions[0]].tolist()
