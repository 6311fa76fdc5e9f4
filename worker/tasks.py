"""The Celery tasks. They check their arguments and call the services (see `worker/services.py`)."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import structlog
from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import cause, is_unavailable
from shared.messaging.queue import (
    ANSWER_PROMPTS,
    EMBED_MISSING,
    MAX_PROMPTS_PER_MESSAGE,
    PROCESS_PROMPTS,
    PURGE_ACCOUNT,
    REINDEX,
    SEAL,
)
from worker.leases import WorkerStopping
from worker.pipeline import Pipeline
from worker.services import Services

log = structlog.get_logger(__name__)

#: Index maintenance may take long. It is requested again if its message is lost, so a task that kills its worker is not
#: redelivered to another one.
_MAINTENANCE = {"acks_late": False, "reject_on_worker_lost": False, "soft_time_limit": 3_600, "time_limit": 3_660}
# PostgreSQL's bigint.
_MAX_ID = 2**63 - 1
#: How many prompts an error names.
_MAX_NAMED = 20


class AttemptFailedError(Exception):
    """Some prompts of a task were not completed.

    They are already released, rescheduled, failed or cancelled. The exception only makes Flower show a failure.
    """


class DatabaseUnavailableError(Exception):
    """Postgres was unavailable, so the task did nothing. A reaper or the next write requests its work again."""


#: Celery logs these without a traceback.
_EXPECTED = (AttemptFailedError, DatabaseUnavailableError)


def register(celery: Celery, services: Callable[[], Services]) -> None:
    """Add the tasks to the application. `services` returns those of the running process."""

    @celery.task(name=ANSWER_PROMPTS, shared=False, throws=_EXPECTED)  # type: ignore[untyped-decorator]
    def answer_prompts(route: Any, count: Any) -> dict[str, list[int]] | None:
        """Answer the next `count` prompts of a route. Returns their ids, which Flower shows."""
        pipeline = services().pipelines.get(route) if isinstance(route, str) else None
        if pipeline is None or type(count) is not int or count < 1:
            log.error("message refused: not a route of this worker and a number of prompts")
            return None
        with _postgres_required():
            return _answer(pipeline, count)

    @celery.task(name=PROCESS_PROMPTS, shared=False, throws=_EXPECTED)  # type: ignore[untyped-decorator]
    def process_prompts(prompt_ids: Any) -> dict[str, list[int]] | None:
        """Answer as many prompts as there are ids. Only the release before the fair queue sends this message.

        It knows one model. A host with others wakes up workers of the prompts' route, and answers prompts of its own.
        """
        if not prompt_ids or not _are_ids(prompt_ids):
            log.error("message refused: not a list of prompt ids")
            return None
        pipeline = services().pipeline
        with _postgres_required():
            pipeline.grant_missing_turns(prompt_ids)
            return _answer(pipeline, len(prompt_ids))

    def seal(user_id: int) -> None:
        """Seal the vectors that a user's log has gathered."""
        services().maintenance.seal(user_id)

    def reindex(user_id: int) -> None:
        """Rebuild a user's vectors for a while; the caller requests the rest with another message."""
        services().reindexer.reindex(user_id)

    def purge_account(user_id: int) -> None:
        """Delete what is left of a deleted account, for a while; the rest is requested with another message."""
        services().account_purge.purge(user_id)

    for name, work in ((SEAL, seal), (REINDEX, reindex), (PURGE_ACCOUNT, purge_account)):
        celery.task(name=name, shared=False, throws=_EXPECTED, **_MAINTENANCE)(_of_user(work))

    @celery.task(name=EMBED_MISSING, shared=False, throws=_EXPECTED, **_MAINTENANCE)  # type: ignore[untyped-decorator]
    def embed_missing() -> int:
        """Embed prompts that were completed without a vector. Returns how many vectors were added."""
        return services().backfill_task.embed_due()


def _answer(pipeline: Pipeline, count: int) -> dict[str, list[int]]:
    """Answer prompts. Returns the ids for Flower.

    Raises:
        AttemptFailedError: some of them were not completed.
    """
    try:
        result = pipeline.process(min(count, MAX_PROMPTS_PER_MESSAGE))
    except WorkerStopping:
        if threading.current_thread() is threading.main_thread():
            raise  # ends this process of the pool
        raise AttemptFailedError("The worker stopped, its prompts were released.") from None
    if result.not_completed:
        raise AttemptFailedError(
            f"Not completed: {_names(result.not_completed)}; completed: {_names(result.completed)}."
        )
    return result._asdict()


def _names(prompt_ids: list[int]) -> str:
    """The prompts as `prompts 3, 7 and 12 more`."""
    if not prompt_ids:
        return "none"
    more = f" and {len(prompt_ids) - _MAX_NAMED} more" if len(prompt_ids) > _MAX_NAMED else ""
    return f"prompt{'s' if len(prompt_ids) > 1 else ''} {', '.join(map(str, prompt_ids[:_MAX_NAMED]))}{more}"


@contextmanager
def _postgres_required() -> Iterator[None]:
    """Log in one line that Postgres was unavailable. Celery would log a traceback for each message."""
    try:
        yield
    except SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        log.warning("postgres unavailable, task not done", error=cause(error))
        raise DatabaseUnavailableError(cause(error)) from None


def _of_user(work: Callable[[int], None]) -> Callable[[Any], None]:
    @wraps(work)
    def checked(user_id: Any) -> None:
        if not _are_ids([user_id]):
            log.error("message refused: not a user's id")
            return
        with _postgres_required():
            work(user_id)

    return checked


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(i) is int and 0 < i <= _MAX_ID for i in value)
