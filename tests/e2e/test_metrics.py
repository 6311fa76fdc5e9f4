"""`/metrics` of several gunicorn processes and of a worker host: every process gives the same, complete figures."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from infra.monitoring import cloudwatch
from shared.settings import Settings
from tests.support import metrics, processes
from tests.support.processes import API, RemoteUser, free_port
from tests.support.servers import MAX_WAIT_SECONDS, Servers, wait_until


@pytest.fixture(scope="module")
def worker_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def settings(own_settings: Settings, servers: Servers, worker_port: int) -> Settings:
    return servers.changed(
        own_settings,
        generator="tests.support.providers:commanded",
        worker_metrics_port=worker_port,
        reaper_seconds=0.5,
    )


@pytest.fixture(scope="module")
def api(settings: Settings) -> Iterator[tuple[str, subprocess.Popen]]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    with processes.process(API, settings, PORT=str(port), API_PROCESSES="2") as running:
        wait_until(lambda: processes.answers(url), what="the API starting")
        yield url, running


@pytest.fixture(scope="module")
def url(api: tuple[str, subprocess.Popen]) -> str:
    return api[0]


@pytest.fixture(scope="module")
def hosts(settings: Settings, url: str, worker_port: int) -> Iterator[str]:
    """A worker host with two processes. Yields the URL of its metrics."""
    host = f"http://127.0.0.1:{worker_port}"
    with processes.worker(settings, processes=2):
        wait_until(lambda: _answers(host), what="the worker serving metrics")
        yield host


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/metrics").status_code == 200
    except httpx.TransportError:
        return False


def test_every_process_counts_the_requests_of_all_processes(url: str) -> None:
    name = 'promptwire_http_request_duration_seconds_count{method="GET",route="/livez/",status="2xx"}'
    before = metrics.read(url).get(name, 0)
    for _ in range(40):  # each over its own connection, so both processes get some
        httpx.get(f"{url}/livez/").raise_for_status()
    wait_until(lambda: metrics.read(url).get(name, 0) == before + 40, what="counting forty requests")
    assert [metrics.read(url)[name] for _ in range(10)] == [before + 40] * 10


def test_sockets_of_dead_processes_are_not_counted(url: str, api: tuple[str, subprocess.Popen]) -> None:
    alice = RemoteUser(url)
    rooms = [alice.join() for _ in range(8)]
    wait_until(lambda: metrics.read(url)["promptwire_sockets"] == 8, what="counting eight sockets")
    for room in rooms[:3]:
        room.__exit__(None, None, None)
    wait_until(lambda: metrics.read(url)["promptwire_sockets"] == 5, what="counting five sockets")
    for child in psutil.Process(api[1].pid).children():
        child.kill()
    wait_until(lambda: _answers(url) and metrics.read(url)["promptwire_sockets"] == 0, what="forgetting the dead")
    assert metrics.read(url)["promptwire_prompts_submitted_total"] >= 0  # the dead processes' counts are kept


def test_a_worker_host_counts_what_its_processes_did(url: str, hosts: str) -> None:
    alice = RemoteUser(url)
    before = metrics.read(hosts)
    done = [alice.submit(f"question {i}") for i in range(10)]
    done.append(alice.submit("refuse"))
    for prompt_id in done:
        alice.wait(prompt_id)

    def grown(name: str) -> float:
        return metrics.read(hosts).get(name, 0) - before.get(name, 0)

    wait_until(lambda: grown('promptwire_prompts_finished_total{status="completed"}') == 10, what="counting answers")
    wait_until(lambda: grown("promptwire_generation_duration_seconds_count") == 10, what="timing generations")
    assert grown('promptwire_prompts_finished_total{status="failed"}') == 1
    assert grown("promptwire_attempts_total") >= 11
    wait_until(lambda: metrics.read(hosts)["promptwire_resident_memory_bytes"] > 3 * 20e6, what="three processes")


def test_events_sent_to_sockets_and_replays_are_counted(url: str, hosts: str) -> None:
    alice, before = RemoteUser(url), metrics.read(url)

    def grown(kind: str) -> float:
        name = f'promptwire_socket_events_sent_total{{kind="{kind}"}}'
        return metrics.read(url)[name] - before[name]

    submitted = 0

    def one_is_pushed() -> bool:
        """On a busy machine the relay's check of the feed may be faster than the push; then it counts as a replay."""
        nonlocal submitted
        alice.submit()
        submitted += 1
        assert room.receive_ending()["seq"] == submitted
        return grown("ending") > 0

    with alice.join() as room:
        room.receive()
        wait_until(one_is_pushed, what="counting a push")
    with alice.join(since=0) as again:
        assert again.receive()["type"] == "connected"
        assert [again.receive()["seq"] for _ in range(submitted)] == list(range(1, submitted + 1))
    wait_until(lambda: grown("ending") + grown("replay") == 2 * submitted, what="counting each event once")
    assert grown("replay") >= submitted


def test_a_reconnect_of_the_relay_is_counted(url: str, servers: Servers) -> None:
    before = metrics.read(url)["promptwire_relay_reconnects_total"]
    with servers.redis() as client:
        wait_until(lambda: client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") > 0, what="cutting connections")
    wait_until(lambda: metrics.read(url)["promptwire_relay_reconnects_total"] > before, what="counting that")


def test_a_worker_whose_metrics_port_is_taken_logs_that_and_works(
    settings: Settings, hosts: str, url: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        other = processes.start(processes.worker_command("other", 1), settings, output=output, REMAP_SIGTERM="SIGQUIT")
        try:
            wait_until(lambda: "other@test ready" in log.read_text(), what="the other worker")
        finally:
            other.send_signal(signal.SIGTERM)
            assert other.wait(timeout=MAX_WAIT_SECONDS) == 0
    assert "set WORKER_METRICS_PORT to a different port" in log.read_text()


def test_the_api_exports_figures_of_the_whole_service(url: str, hosts: str) -> None:
    seen = metrics.read(url)
    assert seen['promptwire_dependency_up{dependency="postgres"}'] == 1
    assert seen['promptwire_dependency_up{dependency="redis"}'] == 1
    # An empty queue is exported as 0: without a figure, CloudWatch would raise an alarm.
    exported = cloudwatch.parse_metrics(httpx.get(f"{url}/metrics").text)
    assert exported.keys() == cloudwatch.UNITS.keys()
    assert exported["promptwire_oldest_queued_seconds"] == 0


def test_with_redis_or_postgres_stalled_the_other_metrics_are_served_in_time(url: str, servers: Servers) -> None:
    for server, name in ((servers.valkey_process, "redis"), (servers.postgres_process, "postgres")):
        with server.stalled():
            wait_until(lambda name=name: metrics.read(url)[f'promptwire_dependency_up{{dependency="{name}"}}'] == 0)
            started = httpx.get(f"{url}/metrics", timeout=8)  # a scrape has ten seconds
            assert started.status_code == 200
            assert "promptwire_http_request_duration_seconds_count" in started.text
        wait_until(lambda name=name: metrics.read(url)[f'promptwire_dependency_up{{dependency="{name}"}}'] == 1)
