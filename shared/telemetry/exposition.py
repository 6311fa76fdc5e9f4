"""Rendering the metrics in Prometheus's or OpenMetrics' text format, and access to them."""

import hmac
import os
from collections.abc import Iterable
from ipaddress import ip_address
from typing import NamedTuple

from prometheus_client import CollectorRegistry, multiprocess
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shared.settings import Settings
from shared.telemetry import metrics


class Rendered(NamedTuple):
    body: bytes
    content_type: str


class MetricsAccessError(Exception):
    """The caller may not read the metrics; the message says why. `needs_token`: whether a token would help."""

    def __init__(self, message: str, *, needs_token: bool) -> None:
        super().__init__(message)
        self.needs_token = needs_token


class _ProcessCollector(Collector):
    """The metrics of this process."""

    def collect(self) -> Iterable[Metric]:
        return metrics.REGISTRY.collect()


def render(accept: str, *collectors: Collector) -> Rendered:
    """Render the metrics of all processes of this server and of `collectors`, in the format of the `Accept` header."""
    metrics.flush()
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.MultiProcessCollector(registry)
    else:
        registry.register(_ProcessCollector())
    for collector in collectors:
        registry.register(collector)
    encode, content_type = choose_encoder(accept)
    return Rendered(encode(registry), content_type)


def check_access(settings: Settings, address: str | None, authorization: str | None) -> None:
    """Check that a caller may read the metrics.

    With METRICS_TOKEN, the caller needs that token. Without it, metrics are closed in production, where all
    callers may have the address of a proxy; elsewhere the caller must be on this machine or in a private network.

    Raises:
        MetricsAccessError: the caller may not.
    """
    token = settings.metrics_token.get_secret_value()
    if token:
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise MetricsAccessError(
                "The metrics' token is needed: Authorization: Bearer <METRICS_TOKEN>.", needs_token=True
            )
    elif settings.app_env == "prod":
        raise MetricsAccessError("Metrics are closed here: set METRICS_TOKEN to read them.", needs_token=False)
    elif not _is_private(address):
        raise MetricsAccessError(
            "Without METRICS_TOKEN, metrics are for this machine and private networks.", needs_token=False
        )


def _is_private(address: str | None) -> bool:
    try:
        parsed = ip_address((address or "").partition("%")[0])
    except ValueError:
        return False
    return parsed.is_loopback or parsed.is_private
