"""The limit of a route's prompts at a time, as a worker follows it: see `shared/prompts/concurrency.py`.

A message that finds all slots in use is dropped, whatever number it has. So there is another rule for messages of a
limited route: whoever takes or frees a slot, and sees other prompts that have free slots, wakes up workers for them;
unless a message waits already, whose claim will see the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.messaging.queue import MAX_PROMPTS_PER_MESSAGE, Queue
from shared.prompts import concurrency
from shared.prompts.claims import Claim, Claimed

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ConcurrencyLimit:
    """Uses the slots of a route.

    Args:
        autocommit_engine: For single statements.
        ceiling: OPENAI_CONCURRENCY.
    """

    autocommit_engine: Engine
    queue: Queue
    route: str
    ceiling: int | None

    def rest(self, claimed: Claimed, asked: int) -> int:
        """For how many prompts to wake up workers after a claim whose message asks for `asked` more."""
        if not claimed.is_limited:
            return asked
        return claimed.ready if self._is_queue_empty(claimed.ready) else min(asked, claimed.ready)

    def fill_slots(self) -> None:
        """Wake up workers for the prompts that have free slots now, if the route is limited."""
        try:
            with self.autocommit_engine.connect() as connection:
                ready = concurrency.count_ready(
                    connection, self.route, ceiling=self.ceiling, limit=MAX_PROMPTS_PER_MESSAGE, if_limited=True
                )
        except SQLAlchemyError as error:
            log.warning("slots not filled, the reaper will wake up workers", error=type(error).__name__)
            return
        if self._is_queue_empty(ready):
            self.queue.wake(self.route, ready)

    def _is_queue_empty(self, ready: int) -> bool:
        """Whether no message waits. Redis is only asked if prompts are ready."""
        return ready > 0 and self.queue.length(self.route) == 0

    def record_answers(self, answered: Sequence[Claim]) -> None:
        """Increase the limit that a provider has reduced, because it has answered these prompts."""
        if not answered:
            return
        try:
            with self.autocommit_engine.connect() as connection:
                concurrency.increase(
                    connection,
                    self.route,
                    answered=len(answered),
                    claimed_at=min(claim.claimed_at for claim in answered),
                    ceiling=self.ceiling,
                )
        except SQLAlchemyError as error:
            log.warning("concurrency not increased", error=type(error).__name__)
