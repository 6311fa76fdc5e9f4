"""Metrics for CloudWatch: read in Prometheus' format, printed in the embedded metric format."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from infra.monitoring.cloudwatch import format_line, parse_metrics
from tests.support.servers import MAX_WAIT_SECONDS, ROOT

EXPOSITION = """\
# HELP promptwire_queue_depth Messages that wait.
# TYPE promptwire_queue_depth gauge
promptwire_queue_depth{pid="7"} 3.0
promptwire_queue_depth{pid="8"} 12.0
promptwire_queue_depth_created 99.0
# TYPE promptwire_oldest_queued_seconds gauge
promptwire_oldest_queued_seconds 1.5e+01 1767225600000
promptwire_requests_total{path="/prompts/"} 400.0
"""


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server that answers /metrics as the API does."""

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            may_read = (self.path, self.headers["Authorization"]) == ("/metrics", "Bearer the token")
            self.send_response(200 if may_read else 404)
            self.end_headers()
            self.wfile.write(EXPOSITION.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Metrics) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(MAX_WAIT_SECONDS)


def test_the_highest_value_of_several_processes_counts() -> None:
    assert parse_metrics(EXPOSITION) == {"promptwire_queue_depth": 12, "promptwire_oldest_queued_seconds": 15}


@pytest.mark.parametrize(
    "exposition", ["", "promptwire_queue_depth NaN\n", "promptwire_queue_depth +Inf\n", "other 1\n"]
)
def test_missing_and_infinite_values_are_left_out(exposition: str) -> None:
    assert parse_metrics(exposition) == {}


def test_a_line_names_each_metric_its_unit_and_its_time() -> None:
    printed = json.loads(format_line({"promptwire_queue_depth": 12.0}, "promptwire", 1_800_000_000.25))
    assert printed["promptwire_queue_depth"] == 12
    assert printed["_aws"]["Timestamp"] == 1_800_000_000_250
    assert printed["_aws"]["CloudWatchMetrics"] == [
        {
            "Namespace": "promptwire",
            "Dimensions": [[]],
            "Metrics": [{"Name": "promptwire_queue_depth", "Unit": "Count"}],
        }
    ]


def test_the_command_prints_the_metrics_to_stdout(port: int) -> None:
    command = [sys.executable, "-m", "infra.monitoring.cloudwatch", "promptwire"]
    environment = os.environ | {"PORT": str(port), "METRICS_TOKEN": "the token"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        printed = json.loads(process.stdout.readline())
        process.terminate()
    assert (printed["promptwire_queue_depth"], printed["promptwire_oldest_queued_seconds"]) == (12, 15)


def test_an_api_that_does_not_answer_is_reported_on_stderr_only() -> None:
    command = [sys.executable, "-m", "infra.monitoring.cloudwatch", "promptwire"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PORT": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"no metrics from http://127.0.0.1:1/metrics")
        process.terminate()
        assert process.stdout is not None
        assert process.stdout.read() == b""
