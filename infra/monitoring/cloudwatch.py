"""Print the queue's metrics for CloudWatch once a minute: `python -m infra.monitoring.cloudwatch NAMESPACE`.

It runs as a sidecar of an API process and reads its `/metrics`, with METRICS_TOKEN from the environment. The output is
in CloudWatch's embedded metric format: the container's log driver ships it, and CloudWatch turns it into metrics, which
scale the workers and raise alarms (infra/aws/autoscaling.tf, infra/aws/alarms.tf). So no agent, no AWS library and no
AWS permission is needed.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import json
import os
import re
import sys
import threading
import time
from http.client import HTTPException
from urllib.request import Request, urlopen

INTERVAL_SECONDS = 60
TIMEOUT_SECONDS = 5
#: Metrics keep their Prometheus names. If several processes report one, the highest value counts.
UNITS = {"promptwire_queue_depth": "Count", "promptwire_oldest_queued_seconds": "Seconds"}
_SAMPLE = re.compile(r"^(\w+)(?:\{.*\})? (\S+)", re.MULTILINE)


def main(url: str, namespace: str, stop: threading.Event, *, token: str = "") -> None:
    """Print a line now and every minute until `stop` is set, except while the API does not answer."""
    request = Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    while True:
        try:
            with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310  # nosec B310
                found = parse_metrics(answer.read().decode())
        except (OSError, HTTPException, ValueError) as error:
            print(f"no metrics from {url}: {error}", file=sys.stderr, flush=True)  # noqa: T201
        else:
            if found:
                print(format_line(found, namespace, time.time()), flush=True)  # noqa: T201
        if stop.wait(INTERVAL_SECONDS):
            return


def parse_metrics(exposition: str) -> dict[str, float]:
    """Return the finite values of our metrics in Prometheus' text format."""
    found: dict[str, float] = {}
    for name, text in _SAMPLE.findall(exposition):
        value = float(text)
        if name in UNITS and abs(value) < float("inf"):
            found[name] = max(value, found.get(name, value))
    return found


def format_line(values: dict[str, float], namespace: str, now: float) -> str:
    """A line in the embedded metric format; `now` in seconds since the epoch."""
    metrics = [{"Name": name, "Unit": UNITS[name]} for name in values]
    directive = {"Namespace": namespace, "Dimensions": [[]], "Metrics": metrics}
    return json.dumps({"_aws": {"Timestamp": int(now * 1000), "CloudWatchMetrics": [directive]}, **values})


if __name__ == "__main__":
    main(
        f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/metrics",
        sys.argv[1],
        threading.Event(),
        token=os.environ.get("METRICS_TOKEN", ""),
    )
