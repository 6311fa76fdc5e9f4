"""Traces from a request through the queue to the push, by OpenTelemetry, if OTEL_EXPORTER_OTLP_ENDPOINT is set.

Without it, OpenTelemetry is not even imported. A prompt's row keeps the `traceparent` (W3C Trace Context) of the
request that submitted it. A Celery message could not carry it: the reaper sends messages of its own, and one message
has several prompts. All later work on a prompt is a child of that request's span; work on several prompts at once has a
span in the trace of each. OpenTelemetry's own instrumentations are not used: they know neither groups nor prompts.
"""

from contextlib import AbstractContextManager

import structlog

from shared.settings import Settings
from shared.telemetry.tracer import Attribute, RequestSpan, Tracer, Traces

log = structlog.get_logger(__name__)


class _NoSpans:
    """A context without spans."""

    def __enter__(self) -> Traces:
        return []

    def __exit__(self, *_: object) -> None: ...


_NO_SPANS = _NoSpans()


class _State:
    tracer: Tracer | None = None


def start(settings: Settings, service: str) -> None:
    """Start tracing, if it is configured. Call it after a fork, because a thread sends the spans."""
    if not settings.otel_exporter_otlp_endpoint:
        return
    try:
        from shared.telemetry import otel
    except ImportError as error:
        log.warning(
            "tracing is off: install requirements/otel.txt, or unset OTEL_EXPORTER_OTLP_ENDPOINT", error=str(error)
        )
        return
    use(otel.make_tracer(settings, service))


def use(tracer: Tracer | None) -> None:
    """Make spans with this tracer; with None, make none."""
    _State.tracer = tracer


def stop() -> None:
    """Send the remaining spans, in bounded time."""
    if _State.tracer is not None:
        _State.tracer.stop()


def is_on() -> bool:
    return _State.tracer is not None


def start_request(traceparent: str | None) -> RequestSpan | None:
    """Start the span of a request, within the caller's trace if there is one."""
    return None if _State.tracer is None else _State.tracer.start_request(traceparent)


def current_traceparent() -> str | None:
    """The `traceparent` of the current request."""
    return None if _State.tracer is None else _State.tracer.current_traceparent()


def spans(name: str, *traces: str | None, **attributes: Attribute) -> AbstractContextManager[Traces]:
    """Wrap a block in a span in each of these traces. The block may append more traces to the list that it gets."""
    if _State.tracer is None:
        return _NO_SPANS
    return _State.tracer.spans(name, attributes, traces)
