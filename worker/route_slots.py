"""Keeping the slots of a route in use: see `shared/prompts/concurrency.py`.

A message that finds all slots in use is dropped, whatever its number. So on a limited route each worker that takes or
frees a slot also counts the prompts that have free slots, and wakes up workers for them. It sends nothing if a message
waits already, because the claim of that one counts them again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import cause
from shared.messaging.queue import MAX_PROMPTS_PER_MESSAGE, Queue
from shared.prompts import concurrency
from shared.prompts.claims import Claim, Claimed

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class RouteSlots:
    """Wakes up workers for the free slots of a route, and raises its limit after answers.

    Args:
        autocommit_engine: For single statements.
        ceiling: The route's `concurrency`, or OPENAI_CONCURRENCY.
    """

    autocommit_engine: Engine
    queue: Queue
    route: str
    ceiling: int | None

    def count_to_wake(self, claimed: Claimed, remaining: int) -> int:
        """For how many prompts to wake up workers after a claim, whose message asks for `remaining` more."""
        if not claimed.is_limited:
            return remaining
        return claimed.ready if self._is_message_needed(claimed.ready) else min(remaining, claimed.ready)

    def fill(self) -> None:
        """Wake up workers for the prompts that have free slots now, if the route is limited."""
        try:
            with self.autocommit_engine.connect() as connection:
                ready = concurrency.count_ready(
                    connection, self.route, ceiling=self.ceiling, limit=MAX_PROMPTS_PER_MESSAGE, if_limited=True
                )
        except SQLAlchemyError as error:
            log.warning("slots not filled, the reaper will wake up workers", error=cause(error))
            return
        if self._is_message_needed(ready):
            self.queue.wake(self.route, ready)

    def _is_message_needed(self, ready: int) -> bool:
        """Whether prompts are ready and no message waits for a worker. Without ready prompts, Redis is not asked."""
        return ready > 0 and self.queue.length(self.route) == 0

    def record_answers(self, answered: Sequence[Claim]) -> None:
        """Raise the reduced limit of the route, because its provider has answered these prompts."""
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
            log.warning("limit of the route not raised", error=cause(error))
