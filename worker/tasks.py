"""The Celery tasks: thin, because what they do is in `worker/pipeline.py`."""

from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery

from shared.queue import PROCESS_PROMPTS
from worker.pipeline import Pipeline

log = structlog.get_logger(__name__)

# PostgreSQL's bigint.
_MAX_ID = 2**63 - 1


def register(celery: Celery, pipeline: Callable[[], Pipeline]) -> None:
    """Adds the tasks to the application. `pipeline` gives that of the running process."""

    @celery.task(name=PROCESS_PROMPTS)  # type: ignore[untyped-decorator]
    def process_prompts(prompt_ids: Any) -> None:
        """Answers the prompts with these ids."""
        if not _are_ids(prompt_ids):
            log.error("message refused: not a list of prompt ids")
            return
        pipeline().process(prompt_ids)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(i) is int and 0 < i <= _MAX_ID for i in value)
