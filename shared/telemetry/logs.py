"""Structured logs: JSON for machines, lines for a terminal. Context such as the request id is bound with contextvars.

Prompt texts, tokens and passwords are never logged.
"""

import logging
import sys
from typing import Any

import structlog
from pydantic_core import to_json
from structlog.types import Processor

from shared.settings import Settings


def configure_logging(settings: Settings) -> None:
    """Sends structlog, the standard library's loggers and warnings to stderr in one format. Call once per process.

    structlog writes by itself, not through the standard library, which would take three times as long; a line below
    the level costs next to nothing.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(settings))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    logging.captureWarnings(True)
    # Celery's two lines a task tell nothing that ours do not.
    for quiet in ("alembic", *_HTTP, *(_CELERY if settings.log_level != "DEBUG" else ())):
        logging.getLogger(quiet).setLevel("WARNING")
    structlog.configure(
        processors=[*_first(), *_last(settings)],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level]),
        cache_logger_on_first_use=True,
    )


def formatter(settings: Settings) -> logging.Formatter:
    """The same format for handlers of the standard library's loggers."""
    last = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_last(settings)]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_first(), processors=last)


def _first() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
    ]


def _last(settings: Settings) -> list[Processor]:
    """What makes a line of it."""
    if settings.log_format == "json" or (settings.log_format == "auto" and settings.app_env == "prod"):
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_to_json)]
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            exception_formatter=structlog.dev.plain_traceback,  # the others show variables, secrets among them
        )
    ]


# They tell of each request, with addresses and headers, which may hold secrets.
_HTTP = ("openai", "httpx2", "httpcore2")
_CELERY = ("celery.worker.strategy", "celery.app.trace")


class _Lines(structlog.WriteLogger):
    """Writes to stderr."""

    def __init__(self, name: str = "") -> None:
        super().__init__(sys.stderr)
        self.name = name


def _to_json(event: dict[str, Any], **_: Any) -> str:
    return to_json(event, fallback=repr).decode()
