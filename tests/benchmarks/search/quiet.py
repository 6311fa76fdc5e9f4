"""What each process of the benchmark does first."""

import logging
import os

import structlog

#: Libraries read these when they are loaded: one thread for all.
_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TOKIO_WORKER_THREADS",
    "LANCE_CPU_THREADS",
)


def one_thread() -> None:
    """To be called before NumPy is loaded. Processes that are started later inherit it."""
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))


def quiet() -> None:
    """Only errors are logged."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
