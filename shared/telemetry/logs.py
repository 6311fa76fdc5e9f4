"""Structured logs: JSON in production, lines in a terminal. Contextvars add context such as the request id.

Prompt texts, tokens and passwords are never logged. `log_escapes.py` keeps text from outside from forging lines.
"""

import logging
import sys

import structlog
from structlog.types import Processor

from shared.settings import BrokerSettings
from shared.telemetry import log_escapes


def configure_logging(settings: BrokerSettings) -> None:
    """Send structlog, the standard library's loggers and warnings to stderr in one format. Call it once per process.

    structlog writes directly, not through the standard library, which would take three times as long. A line below the
    level costs next to nothing.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(settings))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    logging.captureWarnings(True)
    # Celery's two lines per task add nothing to ours.
    for name in ("alembic", *_HTTP_CLIENTS, *(_CELERY_TASKS if settings.log_level != "DEBUG" else ())):
        logging.getLogger(name).setLevel("WARNING")
    structlog.configure(
        processors=[*_context_processors(), *_renderers(settings)],
        logger_factory=_StderrLogger,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level]),
        cache_logger_on_first_use=True,
    )


def formatter(settings: BrokerSettings) -> logging.Formatter:
    """The same format, for handlers of the standard library's loggers."""
    processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(settings)]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_context_processors(), processors=processors)


def _context_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
    ]


def _renderers(settings: BrokerSettings) -> list[Processor]:
    if settings.log_format == "json" or (settings.log_format == "auto" and settings.app_env == "prod"):
        return [
            structlog.processors.ExceptionRenderer(log_escapes.format_traceback),
            structlog.processors.JSONRenderer(log_escapes.render_json),
        ]
    return [
        log_escapes.escape_values,
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            exception_formatter=log_escapes.write_traceback,  # structlog's show variables, which may be secrets
        ),
    ]


# They log each request with its URL and headers, which may hold secrets.
_HTTP_CLIENTS = ("httpx", "httpcore")
_CELERY_TASKS = ("celery.worker.strategy", "celery.app.trace")


class _StderrLogger(structlog.WriteLogger):
    """A logger that writes to stderr and knows its name."""

    def __init__(self, name: str = "") -> None:
        super().__init__(sys.stderr)
        self.name = name
