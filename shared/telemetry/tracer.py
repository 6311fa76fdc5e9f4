"""What `tracing.py` needs of a tracer. `otel.py` has the one there is."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

Attribute = str | int | float | bool
#: The `traceparent` of each trace that a piece of work belongs to; None for work without a trace.
Traces = list[str | None]


class RequestSpan(Protocol):
    """The span of a request. Spans that are started before it ends, in this thread or greenlet, are its children."""

    def end(self, name: str, attributes: Mapping[str, Attribute], *, failed: bool) -> None: ...


class Tracer(Protocol):
    """Makes spans."""

    def start_request(self, traceparent: str | None) -> RequestSpan: ...

    def current_traceparent(self) -> str | None: ...

    def spans(
        self, name: str, attributes: Mapping[str, Attribute], traces: Sequence[str | None]
    ) -> AbstractContextManager[Traces]: ...

    def stop(self) -> None: ...
