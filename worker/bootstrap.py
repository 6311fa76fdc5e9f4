"""The first thing that a worker imports: its settings, and the folder of its processes' metrics."""

import sys

from shared.settings import SettingsError, load_settings
from shared.telemetry import metrics_folder

try:
    settings = load_settings()
except SettingsError as error:
    sys.exit(f"The worker cannot start.\n{error}")

if settings.worker_metrics_port:
    metrics_folder.make()
