"""Spans by OpenTelemetry, sent by OTLP over HTTP. Only `tracing.py` loads this, and only where traces are wanted."""

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
from shared.telemetry.tracing import Attribute, Traces

_propagator = TraceContextTextMapPropagator()


def make_tracer(settings: Settings, service: str) -> "OtelTracer":
    """One that sends to the endpoint of the settings. OpenTelemetry's other variables (OTEL_*) count, too."""
    endpoint = f"{settings.otel_exporter_otlp_endpoint.rstrip('/')}/v1/traces"
    return OtelTracer(service, BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=5)))


class OtelTracer:
    """A `Tracer`. OTEL_SERVICE_NAME has precedence over `service`."""

    def __init__(self, service: str, processor: SpanProcessor) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME", service)
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("promptwire")

    def request(self, traceparent: str | None) -> "_Request":
        return _Request(self._tracer.start_span("request", _context(traceparent), SpanKind.SERVER))

    def current(self) -> str | None:
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        return carrier.get("traceparent")

    @contextmanager
    def spans(self, name: str, attributes: Mapping[str, Attribute], traces: Sequence[str | None]) -> Iterator[Traces]:
        found, begun, error = list(traces), time.time_ns(), None
        try:
            yield found
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            for traceparent in found:
                if traceparent is not None:
                    self._span(name, attributes, traceparent, begun, error)

    def stop(self) -> None:
        self._provider.shutdown()

    def _span(
        self, name: str, attributes: Mapping[str, Attribute], traceparent: str, begun: int, error: str | None
    ) -> None:
        span = self._tracer.start_span(name, _context(traceparent), attributes=attributes, start_time=begun)
        _end(span, error)


class _Request:
    """The span of a request; what is done meanwhile in this thread or greenlet is within it."""

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
