"""What a search must do besides being fast: follow what others commit, start soon, and keep within its memory."""

import contextlib
import io
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faiss
import numpy as np
import psycopg2
from sqlalchemy import text

from shared.db.engine import Sessions
from shared.prompts import submission
from shared.providers import Vectors
from shared.settings import Settings
from tests.benchmarks.search import data, in_process
from tests.benchmarks.search.corpus import Corpus, Owner, connected, copy, log_rows, prompt_ids
from tests.benchmarks.search.elsewhere import Elsewhere, growth, in_fresh_process, our_growth, resident
from tests.benchmarks.search.figures import median, timed
from tests.benchmarks.search.in_postgres import Stores
from tests.benchmarks.search.quiet import quiet

COLD_TRIES = 7


def cold(made: Stores, settings: Settings, owner: Owner) -> dict[str, float]:
    """How long the first search of a store takes that has nothing loaded, in microseconds a vector.

    Beside it, in turns: what a service would do that has only the log, which is to read it all by COPY BINARY into an
    array, and to search that.
    """
    taken: dict[str, list[float]] = {"ours": [], "by COPY": []}
    with connected(settings) as cursor:
        made.make().search(owner.user_id, lambda _: owner.data.queries[0], data.K)
        for query in owner.data.queries[:COLD_TRIES]:
            store = made.make()
            taken["ours"].append(timed(lambda: store.search(owner.user_id, lambda _: query, data.K))[0])  # noqa: B023
            taken["by COPY"].append(timed(lambda: _by_copy(cursor, owner.user_id, query))[0])  # noqa: B023
    ratio = median([a / b for a, b in zip(taken["by COPY"], taken["ours"], strict=True)])
    each = {f"{name}, µs a vector": round(median(times) / owner.size * 1e6, 3) for name, times in taken.items()}
    return {**each, "ours, ms": round(median(taken["ours"]) * 1e3, 2), "COPY / ours": round(ratio, 2)}


def _by_copy(cursor: Any, user_id: int, query: Vectors) -> list[int]:
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


def memory(settings: Settings, owner: Owner, *, graphs: bool) -> dict[str, dict[str, float]]:
    """By how many bytes a vector a fresh process grows that holds an index over one user's vectors."""
    found = {"ours": in_fresh_process(our_growth, settings, owner.user_id, owner.size, owner.data.queries)}
    builds = {"FAISS flat of the user": in_process.flat}
    if graphs:
        builds |= {"usearch": in_process.usearch_graph, "hnswlib": in_process.hnswlib_graph}
    with TemporaryDirectory() as folder:
        path = Path(folder, "vectors.npy")
        np.save(path, owner.data.vectors)
        for name, build in builds.items():
            with contextlib.suppress(ImportError):
                found[name] = {"resident": in_fresh_process(growth, str(path), build)}
    return found


def own_writes(settings: Settings, owners: list[Owner], tries: int) -> dict[str, dict[str, Any]]:
    """Whether the next search in another process (ours), or by another connection (pgvector), finds what was committed.

    With the median latency of that search.
    """
    new = np.concatenate([*data.blocks("random", tries, seed=77)])
    found: dict[str, list[tuple[bool, float]]] = {"ours": [], "pgvector exact": []}
    with (
        contextlib.closing(Elsewhere(settings)) as process,
        connected(settings) as writing,
        connected(settings) as reading,
    ):
        for owner in owners:
            process.search(owner.user_id, owner.data.queries[0])
        for i, vector in enumerate(new):
            owner = owners[i % len(owners)]
            prompt_id = _complete(writing, owner, vector)
            answer = process.search(owner.user_id, vector)
            found["ours"].append((answer.prompt_ids[:1] == [prompt_id], answer.seconds))
            query = "SELECT prompt_id FROM narrow WHERE user_id = %s ORDER BY embedding <-> %s LIMIT 1"
            values = (owner.user_id, str(vector.tolist()))
            seconds, _ = timed(lambda: reading.execute(query, values))  # noqa: B023
            found["pgvector exact"].append((reading.fetchall() == [(prompt_id,)], seconds))
    return {
        name: {
            "found": sum(hit for hit, _ in each),
            "of": len(each),
            "ms": round(median([s for _, s in each]) * 1e3, 3),
        }
        for name, each in found.items()
    }


def _complete(cursor: Any, owner: Owner, vector: Vectors) -> int:
    """What completing a prompt writes to search by, in one transaction, and the same to pgvector's table."""
    advance = "UPDATE users SET seq = seq + 1 WHERE id = %(user)s RETURNING seq"
    log = "INSERT INTO vector_log (user_id, seq, prompt_id, embedder, vector) SELECT %(user)s, seq, %(prompt)s, 'hashing-1', %(bytes)s FROM advanced"  # noqa: E501
    narrow = "INSERT INTO narrow VALUES (%(user)s, %(prompt)s, %(text)s)"
    cursor.execute("SELECT seq FROM users WHERE id = %s", (owner.user_id,))
    (prompt_id,) = prompt_ids(owner.user_id, cursor.fetchone()[0], 1)
    values = {"user": owner.user_id, "prompt": prompt_id, "text": str(vector.tolist())}
    cursor.execute(
        f"WITH advanced AS ({advance}), kept AS ({narrow}) {log}", values | {"bytes": psycopg2.Binary(vector.tobytes())}
    )
    return prompt_id


def deletions(settings: Settings, made: Stores, owners: list[Owner], tries: int) -> dict[str, int]:
    """How often a deleted prompt is found by the next search, in another process or in another store of this one.

    It is looked for by its own vector, by stores that have found it just before. Must be never.
    """
    found = missed = 0
    here = made.make()
    with contextlib.closing(Elsewhere(settings)) as process:
        for number in range(tries):
            owner = owners[number % len(owners)]
            position = number // len(owners)
            (prompt_id,) = prompt_ids(owner.user_id, position, 1)
            vector = owner.data.vectors[position]
            missed += prompt_id not in process.search(owner.user_id, vector).prompt_ids
            _delete(made.sessions, owner.user_id, prompt_id)
            found += prompt_id in process.search(owner.user_id, vector).prompt_ids
            found += prompt_id in [match.prompt_id for match in here.search(owner.user_id, lambda _: vector, data.K)]  # noqa: B023
    return {"deleted": tries, "not found before": missed, "found afterwards": found}


def _delete(sessions: Sessions, user_id: int, prompt_id: int) -> None:
    """Deletes a prompt as the API does. (It is only stored now: so many rows would else be in the way.)"""
    row = (
        "INSERT INTO prompts (id, user_id, prompt_text, response_text, status, websocket, request_id, attempt_limit, "
        "completed_at) OVERRIDING SYSTEM VALUE VALUES (:id, :user, 'T', 'A', 'completed', false, 'r', 5, now())"
    )
    with sessions.begin() as session:
        session.execute(text(row), {"id": prompt_id, "user": user_id})
        submission.delete(session, user_id, prompt_id)


def bounded(settings: Settings, corpus: Corpus, users: int, searches: int) -> dict[str, float]:
    """How much memory a process takes that serves many users at random, with SEARCH_MEMORY_MIB=16."""
    first = max(owner.user_id for owner in corpus.owners) + 100_000
    counts = np.random.default_rng(3).integers(20, 201, size=users)
    with connected(settings) as cursor:
        cursor.execute(
            "INSERT INTO users (id, username, password_hash, embedder, seq) OVERRIDING SYSTEM VALUE "
            "SELECT %s + n - 1, 'small-' || n, '-', 'hashing-1', c FROM unnest(%s) WITH ORDINALITY AS counts (c, n)",
            (first, counts.tolist()),
        )
        for start in range(0, users, 500):
            copy(cursor, "vector_log (user_id, seq, prompt_id, embedder, vector)", _small(first, counts, start))
        cursor.execute("VACUUM ANALYZE vector_log")
    held, grown, taken = in_fresh_process(_serve_many, settings, first, users, searches)
    return {
        "users": users,
        "vectors": int(counts.sum()),
        "searches": searches,
        "most_held_mib": round(held / 2**20, 2),
        "resident_growth_mib": round(grown / 2**20, 2),
        "p50_ms": round(taken * 1e3, 3),
    }


def _small(first: int, counts: Any, start: int) -> Iterator[bytes]:
    for user, count in enumerate(counts[start : start + 500].tolist(), start):
        for block in data.blocks("random", count, seed=user):
            yield from log_rows(first + user, 0, block)


def _serve_many(settings: Settings, first: int, users: int, searches: int) -> tuple[int, int, float]:
    """The most that the store said it held and by how much memory grew, in bytes; the median search, in seconds."""
    quiet()
    rng = np.random.default_rng(4)
    query = next(data.blocks("random", 1, seed=5))[0]
    with contextlib.closing(Stores(settings)) as made:
        store = made.make(memory_mib=16)
        store.search(-1, lambda _: query, data.K)
        before, held, most, taken = resident(), 0, 0, []
        for number, user in enumerate(rng.integers(users, size=searches).tolist()):
            begun = time.perf_counter()
            store.search(first + user, lambda _: query, data.K)
            taken.append(time.perf_counter() - begun)
            held = max(held, store.nbytes)
            if number % 200 == 0:
                most = max(most, resident())
        return held, max(most, resident()) - before, median(taken)
