"""The first thing that a worker imports: its settings, and the folder of its processes' metrics."""

import atexit
import gc
import sys

from shared.settings import SettingsError, load_settings
from shared.telemetry import metrics_folder

# A worker that has stopped exits at once. Otherwise the interpreter's last collections of what is imported take one
# second of CPU, and ten seconds on a busy machine, in which the host's grace period may end.
atexit.register(gc.freeze)
# Collecting garbage during the imports would take a tenth of the start, and free nothing. `worker.app` enables it.
gc.disable()

try:
    settings = load_settings()
except SettingsError as error:
    sys.exit(f"The worker cannot start.\n{error}")

if settings.worker_metrics_port:
    metrics_folder.make()
