"""Redis that keeps its connections and does not answer: nobody waits for it twice, and nothing waits for a reaper."""

from structlog.testing import capture_logs

from api.services import Services
from tests.support.client import ApiUser
from tests.support.servers import Servers, wait_until


def test_submissions_wait_once_and_workers_are_woken_up_when_redis_answers(
    servers: Servers, alice: ApiUser, services: Services
) -> None:
    with servers.valkey_process.stalled(), capture_logs() as logs:
        for _ in range(3):
            assert alice.post("/prompts/", json={"prompt_text": "Hi"}).status_code == 202
        assert not services.queue.is_available
    # Counting the first has waited: sending it has not tried.
    assert "broker unavailable, message not sent" not in [line["event"] for line in logs]
    wait_until(lambda: services.queue.length() == 1, what="one message for all three")
