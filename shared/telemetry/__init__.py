"""Metrics, traces and logs of a running process, and access to the metrics."""
