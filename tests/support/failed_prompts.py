"""Prompts that have failed, stored at once, as the worker would have left them."""

from sqlalchemy import text

from shared.db.engine import Sessions

_FAIL = """
    WITH owner AS (
        UPDATE users SET seq = seq + :count WHERE id = :user_id RETURNING id, seq - :count AS seq
    ), failed AS (
        INSERT INTO prompts (user_id, prompt_text, status, websocket, request_id, attempt, attempt_limit, error, route,
            completed_at, seq, reserved_tokens)
        SELECT owner.id, 'Tide ' || n, :status, false, 'r' || n, 1, 1, :error, :route, clock_timestamp(), owner.seq + n,
            :reserved
        FROM owner, generate_series(1, :count) AS n
        RETURNING id, seq, user_id, completed_at, error
    )
    INSERT INTO feed (user_id, seq, prompt_id, change, error, at)
    SELECT user_id, seq, id, :status, error, completed_at FROM failed
    RETURNING prompt_id
"""


def add_failed(
    sessions: Sessions,
    user_id: int,
    count: int,
    *,
    error: str | None = "The provider failed.",
    route: str = "default",
    status: str = "failed",
    reserved: int = 0,
) -> list[int]:
    """Store failed prompts of a user. Returns their ids."""
    given = {"user_id": user_id, "count": count, "error": error, "route": route, "status": status}
    with sessions.begin() as session:
        return sorted(session.scalars(text(_FAIL), given | {"reserved": reserved}))
