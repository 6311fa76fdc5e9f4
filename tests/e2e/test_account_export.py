"""GET /account/export/ through gunicorn and gevent: a stream of constant memory that keeps nobody waiting."""

import httpx
import psutil
import pytest
from sqlalchemy import text

from shared.db.engine import Sessions
from tests.support.client import PASSWORD
from tests.support.processes import RemoteUser

COUNT, BYTES = 4_000, 8_000


@pytest.fixture
def alice(url: str, sessions: Sessions) -> RemoteUser:
    """A user with 32 MB of prompts."""
    user = RemoteUser(url)
    copies = text("""
        INSERT INTO prompts
            (user_id, prompt_text, response_text, status, websocket, request_id, attempt_limit, completed_at)
        SELECT id, 'What is a tide?', repeat('A', :bytes), 'completed', false, 'r', 5, now()
        FROM users, generate_series(1, :count) WHERE username = :username
    """)
    with sessions.begin() as session:
        session.execute(copies, {"bytes": BYTES, "count": COUNT, "username": user.username})
    return user


def test_an_export_is_complete_and_does_not_grow_the_process(alice: RemoteUser) -> None:
    workers = [each for each in psutil.Process().children(recursive=True) if "gunicorn" in " ".join(each.cmdline())]

    def memory() -> int:
        return max(worker.memory_info().rss for worker in workers)

    before, most, count, rest = memory(), 0, 0, b""
    with alice.http.stream("GET", "/account/export/") as response:
        for part in response.iter_bytes():
            *lines, rest = (rest + part).split(b"\n")
            count += len(lines)
            most = max(most, memory())
    assert (count, rest) == (COUNT, b"")
    assert most - before < COUNT * BYTES / 2


def test_a_client_that_does_not_read_its_export_delays_no_other_client(alice: RemoteUser, url: str) -> None:
    bob = RemoteUser(url)
    with alice.http.stream("GET", "/account/export/") as response:
        next(response.iter_raw())
        for _ in range(20):
            assert bob.http.get("/prompts/").status_code == 200


def test_an_export_whose_account_is_deleted_ends_without_its_last_chunk(alice: RemoteUser) -> None:
    with alice.http.stream("GET", "/account/export/") as response:
        parts = response.iter_bytes()
        next(parts)
        body = {"password": PASSWORD}
        assert alice.http.request("DELETE", "/account/", json=body).status_code == 204
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            for _ in parts:
                pass
