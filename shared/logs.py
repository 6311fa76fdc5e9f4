"""Structured logs: JSON for machines, lines for a terminal. Context such as the request id is bound with contextvars.

Prompt texts, tokens and passwords are never logged.
"""

import logging
import sys
from typing import Any

import structlog
from pydantic_core import to_json

from shared.settings import Settings


def configure_logging(settings: Settings) -> None:
    """Sends structlog and the standard library's loggers to stderr in one format. Call once per process.

    structlog writes by itself, not through the standard library, which would take three times as long; a line below
    the level costs next to nothing.
    """
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and settings.app_env == "prod")
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer(serializer=_to_json)
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            exception_formatter=structlog.dev.plain_traceback,  # the others show variables, secrets among them
        )
    )
    final: list[structlog.types.Processor] = [structlog.processors.format_exc_info] if as_json else []
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    # Celery's two lines a task tell nothing that ours do not.
    for quiet in ("alembic", *(_CELERY if settings.log_level != "DEBUG" else ())):
        logging.getLogger(quiet).setLevel("WARNING")
    structlog.configure(
        processors=[*shared, *final, renderer],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level]),
        cache_logger_on_first_use=True,
    )


_CELERY = ("celery.worker.strategy", "celery.app.trace")


class _Lines(structlog.WriteLogger):
    """Writes to stderr."""

    def __init__(self, name: str = "") -> None:
        super().__init__(sys.stderr)
        self.name = name


def _to_json(event: dict[str, Any], **_: Any) -> str:
    return to_json(event, fallback=repr).decode()
