"""What can be seen of a running process: metrics, traces, and who may see them. Logs are `shared/telemetry/logs.py`."""
