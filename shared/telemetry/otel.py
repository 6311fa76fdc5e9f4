"""Spans by OpenTelemetry, sent by OTLP over HTTP. Only `tracing.py` imports this, and only if tracing is configured."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.settings import Settings
from shared.telemetry.tracer import Attribute, Traces

_propagator = TraceContextTextMapPropagator()


def make_tracer(settings: Settings, service: str) -> "OtelTracer":
    """Make a tracer that sends to the configured endpoint. OpenTelemetry's other variables (OTEL_*) apply, too."""
    endpoint = f"{settings.otel_exporter_otlp_endpoint.rstrip('/')}/v1/traces"
    return OtelTracer(service, BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=5)))


class OtelTracer:
    """A `Tracer`. OTEL_SERVICE_NAME overrides `service`."""

    def __init__(self, service: str, processor: SpanProcessor) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME", service)
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("promptwire")

    def start_request(self, traceparent: str | None) -> "_RequestSpan":
        return _RequestSpan(self._tracer.start_span("request", _context(traceparent), SpanKind.SERVER))

    def current_traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        return carrier.get("traceparent")

    @contextmanager
    def spans(self, name: str, attributes: Mapping[str, Attribute], traces: Sequence[str | None]) -> Iterator[Traces]:
        all_traces, started, error = list(traces), time.time_ns(), None
        try:
            yield all_traces
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            for traceparent in all_traces:
                if traceparent is not None:
                    self._record(name, attributes, traceparent, started, error)

    def stop(self) -> None:
        self._provider.shutdown()

    def _record(
        self, name: str, attributes: Mapping[str, Attribute], traceparent: str, started: int, error: str | None
    ) -> None:
        span = self._tracer.start_span(name, _context(traceparent), attributes=attributes, start_time=started)
        _end(span, error)


class _RequestSpan:
    """A `RequestSpan`."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token = context.attach(trace.set_span_in_context(span))

    def end(self, name: str, attributes: Mapping[str, Attribute], *, failed: bool) -> None:
        context.detach(self._token)
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        _end(self._span, "5xx" if failed else None)


def _context(traceparent: str | None) -> Context:
    return _propagator.extract({} if traceparent is None else {"traceparent": traceparent}, Context())


def _end(span: Span, error: str | None) -> None:
    if error is not None:
        span.set_status(StatusCode.ERROR, error)
    span.end()
