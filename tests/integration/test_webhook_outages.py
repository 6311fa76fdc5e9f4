"""Deliveries to webhooks while PostgreSQL is unavailable."""

import threading
import time
from contextlib import suppress

import pytest
from sqlalchemy.exc import SQLAlchemyError
from structlog.testing import capture_logs

from shared.db.engine import Sessions
from tests.support.servers import MAX_WAIT_SECONDS, Servers, wait_until
from tests.support.webhook_receiver import OK, Request, WebhookReceiver
from tests.support.webhooks import Webhooks, delivering

#: Polls, endpoints and results fail many times meanwhile.
OUTAGE_SECONDS = 2.0


@pytest.mark.parametrize("fault", ["killed", "stalled", "read_only"])
def test_while_postgres_is_away_nothing_is_lost_and_the_log_is_short(
    sessions: Sessions, servers: Servers, fault: str
) -> None:
    webhooks = Webhooks(sessions)
    break_postgres = {
        "killed": servers.postgres_process.killed,
        "stalled": servers.postgres_process.stalled,
        "read_only": servers.read_only,
    }
    is_broken, is_seen = threading.Event(), threading.Event()

    def reply(_: Request) -> bytes:
        is_seen.set()
        is_broken.wait(MAX_WAIT_SECONDS)  # the fault comes between the requests and the records of their results
        return OK

    def all_are_delivered() -> bool:
        with suppress(SQLAlchemyError):  # a server that was read-only is refused for a second more
            return not webhooks.pending()
        return False

    with WebhookReceiver(reply) as receiver:
        for i in range(5):
            webhooks.add(f"{receiver.url}/{i}")
        webhooks.finish(2)
        webhooks.execute("CHECKPOINT")  # the servers of the tests do not write each commit to the disk at once
        with capture_logs() as logs, delivering(sessions):
            assert is_seen.wait(MAX_WAIT_SECONDS)
            with break_postgres[fault]():
                is_broken.set()
                time.sleep(OUTAGE_SECONDS)
            wait_until(all_are_delivered)
    assert {tuple(dict.fromkeys(receiver.seqs(f"/{i}"))) for i in range(5)} == {(1, 2)}
    assert len({request.id for request in receiver.received}) == 10
    lines = [line for line in logs if line["event"].startswith("webhook")]
    assert len(lines) <= 2, lines
    assert all(line["log_level"] == "warning" for line in lines)
