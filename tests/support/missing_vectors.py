"""Completed prompts without a vector: how tests make them, and look at what becomes of them."""

from sqlalchemy import text

from shared.db.engine import Sessions
from tests.support.client import ApiUser
from tests.support.embedders import UNAVAILABLE, FlakyEmbedder, Worker

TIDES, RUST = "What causes ocean tides?", "Write a haiku about rust"


def answer_without_vector(user: ApiUser, worker: Worker, embedder: FlakyEmbedder, *texts: str) -> list[int]:
    """Have prompts answered while the embedder is down; then it works again."""
    ids = [user.submit(each, websocket=True) for each in texts]
    embedder.raised = UNAVAILABLE
    worker.process(len(ids))
    embedder.recover()
    worker.end_pauses()
    return ids


def find(user: ApiUser, query: str, **parameters: object) -> tuple[list[int], str | None]:
    """Search. Returns the ids of the prompts that are practically equal, and how many could not be compared."""
    response = user.get("/prompts/similar/", query_string={"prompt": query, "max_score": 1e-3, **parameters})
    assert response.status_code == 200, response.text
    return [each["id"] for each in response.json], response.headers.get("Missing-Vectors")


def fetch(sessions: Sessions, sql: str) -> list[tuple]:
    with sessions() as session:
        return [tuple(row) for row in session.execute(text(sql))]


def vectors(sessions: Sessions) -> list[int]:
    """The prompts of all vectors."""
    return [row[0] for row in fetch(sessions, "SELECT prompt_id FROM vector_log WHERE vector IS NOT NULL ORDER BY 1")]


def changes(sessions: Sessions, user: ApiUser) -> list[str]:
    """The feed of a user, checked to have no gap."""
    rows = fetch(sessions, f"SELECT seq, change FROM feed WHERE user_id = {user.id} ORDER BY seq")  # noqa: S608
    assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1))
    assert fetch(sessions, f"SELECT seq FROM users WHERE id = {user.id}") == [(len(rows),)]  # noqa: S608
    return [change for _, change in rows]
