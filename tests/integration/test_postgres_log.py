"""PostgreSQL's own log names errors, but has no users' texts."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from shared.accounts import users
from shared.db.engine import Sessions
from tests.support.servers import Servers, wait_until

SECRET = "zebra crossing at midnight"


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        # The detail of the error shows the row.
        (
            "INSERT INTO prompts (user_id, prompt_text, websocket, request_id, attempt_limit, status)"
            " VALUES (:user, :secret, false, '', 1, 'odd')",
            'violates check constraint "status_known"',
        ),
        ("INSERT INTO users (username, password_hash) VALUES (:secret, '')", "duplicate key value"),
        ("SELECT :secret FROM nowhere", 'relation "nowhere" does not exist'),
        (
            "SELECT set_config('statement_timeout', '50', true), :secret; SELECT pg_sleep(60), :secret",
            "statement timeout",
        ),
        # The context of the error shows the query.
        ("DO $$ BEGIN PERFORM 1 / 0, 'zebra crossing at midnight'; END $$", "division by zero"),
    ],
)
def test_an_error_is_logged_without_the_texts_of_its_statement(
    servers: Servers, sessions: Sessions, statement: str, error: str
) -> None:
    with sessions.begin() as session:
        user_id = users.create(session, SECRET, "").id
    before = len(servers.postgres_log.read_text())
    with pytest.raises(DBAPIError, match=error), sessions.begin() as session:
        session.execute(text(statement), {"secret": SECRET, "user": user_id})

    def logged() -> str:
        return servers.postgres_log.read_text()[before:]

    wait_until(lambda: error in logged(), what="the server logging the error")
    assert SECRET not in servers.postgres_log.read_text()


def test_a_slow_statement_is_not_logged(servers: Servers, sessions: Sessions) -> None:
    with sessions() as session:
        names = ("log_min_duration_statement", "log_min_duration_sample", "log_statement", "log_lock_waits")
        shown = {name: session.scalar(text(f"SHOW {name}")) for name in names}
    assert shown == {
        "log_min_duration_statement": "-1",
        "log_min_duration_sample": "-1",
        "log_statement": "none",
        "log_lock_waits": "off",
    }
