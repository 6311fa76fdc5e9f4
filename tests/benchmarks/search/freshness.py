"""Checks that a search follows commits: it finds what was written before it, and nothing that was deleted."""

import contextlib
from typing import Any

import numpy as np
import psycopg2
from sqlalchemy import text

from shared.db.engine import Sessions
from shared.prompts import submission
from shared.providers import Vectors
from shared.settings import Settings
from tests.benchmarks.search import data
from tests.benchmarks.search.corpus import Owner, connected, prompt_ids
from tests.benchmarks.search.figures import median, timed
from tests.benchmarks.search.in_postgres import Stores
from tests.benchmarks.search.search_process import SearchProcess


def writes(settings: Settings, owners: list[Owner], tries: int) -> dict[str, dict[str, Any]]:
    """Count how often the next search in another process (ours) or by another connection (pgvector) finds a commit.

    The result includes the median latency of that search.
    """
    new = np.concatenate([*data.blocks("random", tries, seed=77)])
    found: dict[str, list[tuple[bool, float]]] = {"ours": [], "pgvector exact": []}
    with (
        contextlib.closing(SearchProcess(settings)) as process,
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
    """Write what a completed prompt adds to the vector log, and the same to pgvector's table, in one transaction."""
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


def deletions(settings: Settings, stores: Stores, owners: list[Owner], tries: int) -> dict[str, int]:
    """Count how often the next search, in another process or another store, finds a deleted prompt: it must never.

    The searches use the prompt's own vector, and the stores have found it just before.
    """
    found = missed = 0
    here = stores.make()
    with contextlib.closing(SearchProcess(settings)) as process:
        for number in range(tries):
            owner = owners[number % len(owners)]
            position = number // len(owners)
            (prompt_id,) = prompt_ids(owner.user_id, position, 1)
            vector = owner.data.vectors[position]
            missed += prompt_id not in process.search(owner.user_id, vector).prompt_ids
            _delete(stores.sessions, owner.user_id, prompt_id)
            found += prompt_id in process.search(owner.user_id, vector).prompt_ids
            matches = here.search(owner.user_id, lambda _: vector, data.K).matches  # noqa: B023
            found += prompt_id in [match.prompt_id for match in matches]
    return {"deleted": tries, "not found before": missed, "found afterwards": found}


def _delete(sessions: Sessions, user_id: int, prompt_id: int) -> None:
    """Delete a prompt as the API does. (Its row is stored only now; all rows would slow down the rest.)"""
    row = (
        "INSERT INTO prompts (id, user_id, prompt_text, response_text, status, websocket, request_id, attempt_limit, "
        "completed_at) OVERRIDING SYSTEM VALUE VALUES (:id, :user, 'T', 'A', 'completed', false, 'r', 5, now())"
    )
    with sessions.begin() as session:
        session.execute(text(row), {"id": prompt_id, "user": user_id})
        submission.delete(session, user_id, prompt_id)
