"""A trace through processes: gunicorn, Celery, and back to the socket."""

import httpx

from shared.settings import Settings
from tests.support import processes
from tests.support.otlp import collector
from tests.support.processes import RemoteUser
from tests.support.servers import Servers

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_one_trace_from_the_request_through_the_worker_to_the_push(own_settings: Settings, servers: Servers) -> None:
    with collector() as received:
        traced = servers.changed(own_settings, otel_exporter_otlp_endpoint=received.url)
        with processes.api(traced) as url, processes.worker(traced, processes=1, name="traced"):
            alice = RemoteUser(url)
            with alice.join() as room:
                room.receive()
                headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
                body = {"prompt_text": "What is a tide?", "websocket": True}
                alice.http.post("/prompts/", json=body, headers=headers).raise_for_status()
                room.receive_ending()
        # Both processes have stopped, and have sent their last spans.
        mine = {(span.service, span.name) for span in received.spans if span.trace == TRACE}
        of_worker = {("promptwire-worker", name) for name in ("claim", "embed", "generate", "complete", "announce")}
        assert mine == of_worker | {("promptwire-api", "POST /prompts/"), ("promptwire-api", "push")}


def test_an_unavailable_collector_delays_neither_prompts_nor_the_stop(own_settings: Settings, servers: Servers) -> None:
    traced = servers.changed(own_settings, otel_exporter_otlp_endpoint="http://127.0.0.1:9")
    with processes.api(traced) as url, processes.worker(traced, processes=1, name="untraced"):
        alice = RemoteUser(url)
        assert alice.wait(alice.submit())["status"] == "completed"
        assert httpx.get(f"{url}/readyz").status_code == 200
    # Both processes have stopped in time.
