"""The first thing that a worker imports: its settings, and the folder of its processes' metrics."""

import atexit
import gc
import sys

import billiard.pool

from shared.settings import SettingsError, load_settings
from shared.telemetry import metrics_folder

# A worker that has stopped exits at once. Otherwise the interpreter's last collections of what is imported take one
# second of CPU, and ten seconds on a busy machine, in which the host's grace period may end.
atexit.register(gc.freeze)
# A process that exits waits until the main process has read the results of its tasks. A main process that is stopping
# reads no more. The default is 30 s; a lost result or acknowledgement does no harm here.
billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 10  # times 0.1 s
# Collecting garbage during the imports would take a tenth of the start, and free nothing. `worker.app` enables it.
gc.disable()

try:
    settings = load_settings()
except SettingsError as error:
    sys.exit(f"The worker cannot start.\n{error}")

if settings.worker_metrics_port:
    metrics_folder.make()
