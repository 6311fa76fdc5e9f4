"""One trace from a request through the queue to the push, with OpenTelemetry, if OTEL_EXPORTER_OTLP_ENDPOINT is set.

Where it is not, OpenTelemetry is not even loaded. A prompt's row keeps the `traceparent` (W3C Trace Context) of the
request that submitted it: Celery's message could not, because a reaper sends others, and one carries several prompts.
Whatever is done for a prompt later is a span right below that request's, and what is done for several at once is one in
the trace of each. The library's own instrumentations are not used: they see neither groups nor prompts.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import structlog

from shared.settings import Settings

log = structlog.get_logger(__name__)

Attribute = str | int | float | bool
#: Traces in which something is done, as far as it is known; those without one are left out.
Traces = list[str | None]


class Request(Protocol):
    """A request's span."""

    def end(self, name: str, attributes: Mapping[str, Attribute], *, failed: bool) -> None: ...


class Tracer(Protocol):
    """What makes spans; `otel.py` has the one there is."""

    def request(self, traceparent: str | None) -> Request: ...

    def current(self) -> str | None: ...

    def spans(
        self, name: str, attributes: Mapping[str, Attribute], traces: Sequence[str | None]
    ) -> AbstractContextManager[Traces]: ...

    def stop(self) -> None: ...


class _Untraced:
    """A block without spans."""

    def __enter__(self) -> Traces:
        return []

    def __exit__(self, *_: object) -> None: ...


_UNTRACED = _Untraced()


class _State:
    tracer: Tracer | None = None


def start(settings: Settings, service: str) -> None:
    """Begins to trace, where that is wanted. Call it after a fork: a thread sends the spans."""
    if not settings.otel_exporter_otlp_endpoint:
        return
    try:
        from shared.telemetry import otel
    except ImportError as error:
        log.warning("no traces: install requirements/otel.txt, or unset OTEL_EXPORTER_OTLP_ENDPOINT", error=str(error))
        return
    use(otel.make_tracer(settings, service))


def use(tracer: Tracer | None) -> None:
    """Has spans made by this one, or none made."""
    _State.tracer = tracer


def stop() -> None:
    """Sends what has not been sent yet, in bounded time."""
    if _State.tracer is not None:
        _State.tracer.stop()


def is_on() -> bool:
    return _State.tracer is not None


def request(traceparent: str | None) -> Request | None:
    """Begins the span of a request, which may go on another's trace."""
    return None if _State.tracer is None else _State.tracer.request(traceparent)


def current() -> str | None:
    """The `traceparent` of the request that is served."""
    return None if _State.tracer is None else _State.tracer.current()


def spans(name: str, *traces: str | None, **attributes: Attribute) -> AbstractContextManager[Traces]:
    """Makes a span of the block in each of these traces, and in those that the block adds to the list it gets."""
    if _State.tracer is None:
        return _UNTRACED
    return _State.tracer.spans(name, attributes, traces)
