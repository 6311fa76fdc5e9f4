"""The cleaner: deletes what has expired."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from sqlalchemy.orm import Session

from shared.accounts import budgets, login_blocks, logins, sign_in_codes
from shared.batches import files
from shared.db.engine import Sessions
from shared.operators import operations
from shared.prompts import feed, idempotency
from shared.settings import Settings
from shared.webhooks import results

INTERVAL_SECONDS = 600


class Cleaner:
    """Deletes old feed entries, deliveries and operations, expired idempotency keys, logins and sign-ins, address
    blocks of old logins, and what interrupted uploads have left.

    It also ends deliveries that are not tried any more.
    """

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self._feed_retention = timedelta(days=settings.feed_retention_days)
        self._sessions = sessions

    def round(self) -> None:
        with self._sessions.begin() as session:
            feed.purge(session, self._feed_retention)
            idempotency.purge(session)
            logins.purge_expired(session)
            login_blocks.purge(session)
            sign_in_codes.purge(session)
            budgets.purge(session)
            files.purge_interrupted(session)
            operations.purge(session, self._feed_retention)
        self._repeat(results.give_up)
        self._repeat(partial(results.purge, retention=self._feed_retention))

    def _repeat(self, step: Callable[[Session], int]) -> None:
        """Do what is too much for one transaction."""
        count = results.MAX_CHANGES
        while count == results.MAX_CHANGES:
            with self._sessions.begin() as session:
                count = step(session)
