"""The Celery tasks. They check their arguments and call the services (see `worker/services.py`)."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import structlog
from celery import Celery

from shared.messaging.queue import PROCESS_PROMPTS, REINDEX, SEAL
from worker.services import Services

log = structlog.get_logger(__name__)

#: Index maintenance may take long. It is requested again if its message is lost, so a task that kills its worker is not
#: redelivered to another one.
_MAINTENANCE = {"acks_late": False, "reject_on_worker_lost": False, "soft_time_limit": 3_600, "time_limit": 3_660}
# PostgreSQL's bigint.
_MAX_ID = 2**63 - 1


def register(celery: Celery, services: Callable[[], Services]) -> None:
    """Add the tasks to the application. `services` returns those of the running process."""

    @celery.task(name=PROCESS_PROMPTS)  # type: ignore[untyped-decorator]
    def process_prompts(prompt_ids: Any) -> None:
        """Answer the prompts with these ids."""
        if not _are_ids(prompt_ids):
            log.error("message refused: not a list of prompt ids")
            return
        services().pipeline.process(prompt_ids)

    def seal(user_id: int) -> None:
        """Seal the vectors that a user's log has gathered."""
        services().maintenance.seal(user_id)

    def reindex(user_id: int) -> None:
        """Rebuild a user's vectors for a while; the caller requests the rest with another message."""
        services().reindexer.reindex(user_id)

    for name, work in ((SEAL, seal), (REINDEX, reindex)):
        celery.task(name=name, **_MAINTENANCE)(_of_user(work))


def _of_user(work: Callable[[int], None]) -> Callable[[Any], None]:
    @wraps(work)
    def checked(user_id: Any) -> None:
        if not _are_ids([user_id]):
            log.error("message refused: not a user's id")
            return
        work(user_id)

    return checked


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(i) is int and 0 < i <= _MAX_ID for i in value)
