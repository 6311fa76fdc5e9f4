"""Settings that every process of the benchmark needs: one thread per library, and no log."""

import logging
import os

import structlog

#: Libraries read these when they are loaded.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TOKIO_WORKER_THREADS",
    "LANCE_CPU_THREADS",
)


def use_one_thread() -> None:
    """Limit all libraries to one thread. Call it before NumPy is loaded; child processes inherit it."""
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))


def silence_logs() -> None:
    """Log errors only."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
