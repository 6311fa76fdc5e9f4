"""Deleting responses and chat completions that were not to be stored (`store: false`), some minutes after their end.

Until then they are kept as all prompts are, so that a repeated request or a retry by the client gets the answer.
"""

from datetime import timedelta

from sqlalchemy import text

from shared.db.engine import Sessions
from shared.db.models import UNSTORED
from shared.errors import PromptNotFoundError
from shared.messaging import announcements
from shared.messaging.announcements import Announcer
from shared.prompts import submission

INTERVAL_SECONDS = 60.0
#: How long an unstored prompt is kept after its end.
KEPT_FOR = timedelta(minutes=10)
BATCH = 100

_FIND = text(f"""
    SELECT id, user_id FROM prompts WHERE {UNSTORED} AND completed_at < now() - :kept_for
    ORDER BY completed_at LIMIT :limit
""")  # noqa: S608  # nosec B608


class UnstoredPrompts:
    """Deletes the unstored prompts whose time is over."""

    def __init__(self, sessions: Sessions, announcer: Announcer) -> None:
        self._sessions = sessions
        self._announcer = announcer

    def round(self) -> None:
        while True:
            with self._sessions() as session:
                due = session.execute(_FIND, {"kept_for": KEPT_FOR, "limit": BATCH}).all()
            for prompt in due:
                self._delete(prompt.user_id, prompt.id)
            if len(due) < BATCH:
                return

    def _delete(self, user_id: int, prompt_id: int) -> None:
        try:
            with self._sessions.begin() as session:
                deletion = submission.delete(session, user_id, prompt_id)
        except PromptNotFoundError:  # its user was faster
            return
        self._announcer.announce((user_id, announcements.from_deletion(deletion)))
