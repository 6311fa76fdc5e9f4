"""Giving the metrics to whoever may read them, in Prometheus's or OpenMetrics' text format."""

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
    """The message says why. `needs_token` tells whether a token would help."""

    def __init__(self, message: str, *, needs_token: bool) -> None:
        super().__init__(message)
        self.needs_token = needs_token


class _Own(Collector):
    """What this process has counted."""

    def collect(self) -> Iterable[Metric]:
        return metrics.REGISTRY.collect()


def render(accept: str, *more: Collector) -> Rendered:
    """The numbers of all processes of this server, and what `more` tells, as the `Accept` header wants them."""
    metrics.flush()
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.MultiProcessCollector(registry)
    else:
        registry.register(_Own())
    for collector in more:
        registry.register(collector)
    encode, content_type = choose_encoder(accept)
    return Rendered(encode(registry), content_type)


def admit(settings: Settings, address: str | None, authorization: str | None) -> None:
    """Whether whoever connects from this address may read the metrics.

    With METRICS_TOKEN, who bears it. Without, nobody in production, where a proxy may stand before the port and
    everybody come from its address; elsewhere who is on this machine or in a private network.

    Raises:
        MayNotReadError: they may not.
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
    elif not _is_near(address):
        raise MetricsAccessError(
            "Without METRICS_TOKEN, metrics are for this machine and private networks.", needs_token=False
        )


def _is_near(address: str | None) -> bool:
    try:
        found = ip_address((address or "").partition("%")[0])
    except ValueError:
        return False
    return found.is_loopback or found.is_private
