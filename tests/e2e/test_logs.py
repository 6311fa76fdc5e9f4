"""The logs of API and worker processes: JSON throughout, and one request id from the request to the event."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from shared.settings import Settings
from tests.support import processes
from tests.support.processes import API, RemoteUser, free_port
from tests.support.servers import MAX_WAIT_SECONDS, Servers, wait_until


class Log:
    """The log of a process."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def lines(self) -> list[dict]:
        """The complete lines. Fails if one is not JSON."""
        return [json.loads(line) for line in self.file.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def of(self, request_id: str) -> list[dict]:
        return [line for line in self.lines if line.get("request_id") == request_id]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Log]:
    folder = tmp_path_factory.mktemp("logs")
    return {name: Log(folder / name) for name in ("api", "worker")}


@pytest.fixture(scope="module")
def started(own_settings: Settings, servers: Servers, logs: dict[str, Log]) -> Iterator[tuple[str, dict]]:
    changed = servers.changed(own_settings, generator="tests.support.providers:commanded", log_format="json")
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = processes.worker_command("logging", 1)
    commands = {"api": API, "worker": [command[0], "--quiet", *command[1:]]}
    running = {}
    try:
        for name, command in commands.items():
            with logs[name].file.open("wb") as output:
                running[name] = processes.start(
                    command, changed, output=output, PORT=str(port), **processes.WORKER_ENVIRONMENT
                )
        wait_until(lambda: processes.answers(url), what="the API starting")
        yield url, running
    finally:
        for process in running.values():
            processes.kill(process)


def test_one_request_id_goes_from_the_request_to_the_event(started, logs: dict[str, Log]) -> None:
    url, _ = started
    alice = RemoteUser(url)
    with alice.join() as room:
        room.receive()
        body = {"prompt_text": "What is a tide?", "websocket": True}
        answer = alice.http.post("/prompts/", json=body, headers={"X-Request-ID": "req-7"})
        assert answer.headers["X-Request-ID"] == "req-7"
        assert room.receive_ending()["request_id"] == "req-7"
    wait_until(lambda: logs["api"].of("req-7") and logs["worker"].of("req-7"), what="both logs having a line")
    (request,), (completed,) = logs["api"].of("req-7"), logs["worker"].of("req-7")
    assert (request["event"], request["status"], request["path"]) == ("request", 202, "/prompts/")
    assert (completed["event"], completed["prompt_id"]) == ("completed", answer.json()["id"])
    assert {"timestamp", "level", "logger", "ms"} <= request.keys()
    assert {"timestamp", "level", "logger", "attempt", "seconds"} <= completed.keys()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nAuthorization Bearer zebra\r\n\r\n",
        b'{"prompt_text": "zebra"}\r\n\r\n',
        b"POST /login/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzebra\r\n",
    ],
)
def test_of_a_malformed_request_only_its_origin_is_logged(started, logs: dict[str, Log], sent: bytes) -> None:
    before = logs["api"].file.read_text().count("Invalid request from ip=127.0.0.1")
    with socket.create_connection(
        ("127.0.0.1", int(started[0].rpartition(":")[2])), timeout=MAX_WAIT_SECONDS
    ) as client:
        client.sendall(sent)
        while client.recv(1024):
            pass
    assert "zebra" not in logs["api"].file.read_text()
    if b"chunked" not in sent:
        wait_until(lambda: logs["api"].file.read_text().count("Invalid request from ip=127.0.0.1") > before)


def test_a_request_cannot_forge_log_lines_or_control_a_terminal(started, logs: dict[str, Log]) -> None:
    url, _ = started
    forged = "/x%e2%80%a8%c2%85%0a2026-01-01 [critical] zebra%1b[2J%7f%e2%80%ae"
    answer = RemoteUser(url).http.get(forged, headers={"X-Request-ID": "req-9"})
    assert answer.status_code == 404
    wait_until(lambda: logs["api"].of("req-9"), what="the API logging it")
    (request,) = logs["api"].of("req-9")
    assert request["path"].startswith("/x\u2028\x85\n2026-01-01 [critical]")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]", logs["api"].file.read_text())


def test_a_failed_attempt_is_logged_once_with_its_error_and_prompt(started, logs: dict[str, Log]) -> None:
    url, _ = started
    alice = RemoteUser(url)
    body = {"prompt_text": "refuse"}
    answer = alice.http.post("/prompts/", json=body, headers={"X-Request-ID": "req-8"})
    alice.wait(answer.json()["id"])
    wait_until(lambda: logs["worker"].of("req-8"), what="the worker logging it")
    (failed,) = logs["worker"].of("req-8")
    assert (failed["event"], failed["level"], failed["error"]) == ("attempt failed", "warning", "ProviderError")
    assert (failed["prompt_id"], failed["attempt"]) == (answer.json()["id"], 1)


def test_gunicorns_and_celerys_own_lines_have_the_same_shape(started, logs: dict[str, Log]) -> None:
    _, running = started
    psutil.Process(running["api"].pid).children()[0].kill()
    for name, logger in (("api", "gunicorn.error"), ("worker", "celery.apps.worker")):

        def theirs(name: str = name, logger: str = logger) -> list[dict]:
            return [line for line in logs[name].lines if line["logger"] == logger]

        wait_until(theirs, what=f"{logger} logging a line")
        assert {"timestamp", "level", "event"} <= theirs()[0].keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", theirs()[0]["timestamp"])
