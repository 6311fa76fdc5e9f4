"""The purger: requests the purge of deleted accounts again, until nothing is left of them."""

from shared.accounts import purge
from shared.db.engine import Sessions
from shared.messaging.queue import Queue

INTERVAL_SECONDS = 60.0
#: How many accounts a round requests.
MAX_ACCOUNTS = 100


class Purger:
    """Requests purges whose messages were lost, or that were interrupted, or could not delete everything."""

    def __init__(self, sessions: Sessions, queue: Queue) -> None:
        self._sessions = sessions
        self._queue = queue

    def round(self) -> None:
        with self._sessions() as session:
            due = purge.find_due(session, MAX_ACCOUNTS)
        for user_id in due:
            self._queue.request_purge(user_id)
