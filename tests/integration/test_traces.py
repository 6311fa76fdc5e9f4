"""Traces: one per prompt, from its request to its push. Without an endpoint OpenTelemetry is not even imported."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.db.engine import Sessions
from shared.settings import Settings
from shared.telemetry import tracing
from shared.telemetry.otel import OtelTracer
from tests.support import lifecycle
from tests.support.client import ApiUser
from tests.support.otlp import collector
from tests.support.providers import Commanded
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, environment_of, wait_until
from worker.pipeline import Pipeline

TRACE = "0af7651916cd43dd8448eb211c80319c"
PROMPT_SPANS = ["claim", "embed", "generate", "complete", "announce", "push"]


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracing.use(OtelTracer("test", SimpleSpanProcessor(exporter)))
    yield exporter
    tracing.use(None)


@pytest.fixture
def alice(exported: InMemorySpanExporter, app: Flask) -> ApiUser:
    return ApiUser(app, "alice")


def named(exported: InMemorySpanExporter, *names: str) -> list[ReadableSpan]:
    return [span for span in exported.get_finished_spans() if span.name in names]


def trace_of(span: ReadableSpan) -> str:
    return f"{span.context.trace_id:032x}"


def test_a_prompt_is_one_trace_from_its_request_to_its_push(
    exported: InMemorySpanExporter, alice: ApiUser, services, worker: Pipeline
) -> None:
    with services.relay.subscribe(alice.id) as subscription:
        wait_until(lambda: services.relay._pubsub is not None and alice.id in services.relay._rooms)
        wait_until(lambda: events_arrive(services, alice, subscription), what="the room's subscription")
        exported.clear()
        headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-ID": "req-1"}
        body = {"prompt_text": "tides", "websocket": True}
        alice.post("/prompts/", json=body, headers=headers)
        worker.process(1)
        wait_until(lambda: named(exported, "push"), what="the push")
    (request,) = named(exported, "POST /prompts/")
    assert f"{request.parent.span_id:016x}" == "b7ad6b7169203331"
    assert request.attributes["http.response.status_code"] == 202
    assert request.attributes["promptwire.request_id"] == "req-1"
    later = sorted(named(exported, *PROMPT_SPANS), key=lambda span: span.start_time)
    assert sorted(span.name for span in later) == sorted(PROMPT_SPANS)
    assert {trace_of(span) for span in (request, *later)} == {TRACE}
    assert {span.parent.span_id for span in later} == {request.context.span_id}


def events_arrive(services, user: ApiUser, subscription) -> bool:
    """Return whether an announcement to the user's channel arrives."""
    services.announcer.login_ended(user.id)
    return subscription.get(0.2) is not None


def test_each_prompt_of_a_group_has_its_own_trace(
    exported: InMemorySpanExporter, alice: ApiUser, worker: Pipeline
) -> None:
    prompt_ids = [alice.submit(f"question {i}") for i in range(3)]
    worker.process(len(prompt_ids))
    submitted = {trace_of(span) for span in named(exported, "POST /prompts/")}
    assert len(submitted) == 3
    for name in ("claim", "embed", "generate", "complete", "announce"):
        assert {trace_of(span) for span in named(exported, name)} == submitted, name


def test_all_attempts_share_one_trace_and_a_failed_attempt_is_an_error_span(
    exported: InMemorySpanExporter, alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    failing = replace(worker, generator=Commanded(), retry_backoff=timedelta())
    alice.submit("fail")
    for _ in range(2):
        failing.process(1)
        with sessions.begin() as session:
            lifecycle.end_backoffs(session)
    generations = named(exported, "generate")
    assert [span.attributes["attempt"] for span in generations] == [1, 2]
    assert {trace_of(span) for span in generations} == {trace_of(named(exported, "POST /prompts/")[0])}
    assert {span.status.status_code.name for span in generations} == {"ERROR"}


def test_a_request_that_its_caller_does_not_sample_is_not_traced(
    exported: InMemorySpanExporter, alice: ApiUser, worker: Pipeline
) -> None:
    exported.clear()
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-00"}
    alice.post("/prompts/", json={"prompt_text": "tides"}, headers=headers)
    worker.process(1)
    assert exported.get_finished_spans() == ()


@pytest.mark.parametrize("header", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_malformed_traceparent_starts_a_new_trace(
    exported: InMemorySpanExporter, alice: ApiUser, header: str
) -> None:
    assert alice.get("/prompts/", headers={"traceparent": header}).status_code == 200
    assert named(exported, "GET /prompts/")[-1].parent is None


PROGRAM = """
import sys
from shared.settings import load_settings
from shared.telemetry import tracing
settings = load_settings()
tracing.start(settings, "promptwire-test")
import api.app, worker.services
app = api.app.create_app(settings)
assert app.test_client().get("/livez").status_code == 200
tracing.stop()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def run(settings: Settings, **environment: str) -> list[str]:
    """Return the packages that a process imports to create an application and answer a request."""
    variables = environment_of(settings) | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(
        command, env=variables, cwd=ROOT, capture_output=True, text=True, check=True, timeout=MAX_WAIT_SECONDS
    ).stdout.split()


def test_without_an_endpoint_opentelemetry_is_not_loaded(settings: Settings) -> None:
    assert "opentelemetry" not in run(settings)


def test_spans_are_sent_to_the_configured_endpoint(settings: Settings) -> None:
    with collector() as received:
        assert "opentelemetry" in run(settings, OTEL_EXPORTER_OTLP_ENDPOINT=received.url)
        assert [(span.service, span.name) for span in received.spans] == [("promptwire-test", "GET /livez/")]


def test_an_application_with_an_endpoint_but_without_opentelemetry_still_works(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('not installed')")
    path = f"{tmp_path}:{ROOT}"
    assert "shared" in run(settings, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", PYTHONPATH=path)
