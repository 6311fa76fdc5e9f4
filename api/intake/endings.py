"""Cancelling and deleting prompts, and what follows: an announcement, and the next turn of the user."""

from api.intake.submissions import Submissions
from shared.db.engine import Sessions
from shared.messaging import announcements
from shared.messaging.announcements import Announcer
from shared.prompts import queries, submission
from shared.prompts.queries import PromptRow
from shared.telemetry import metrics


class Endings:
    """Ends prompts at the request of their users, whichever API they use."""

    def __init__(self, sessions: Sessions, submissions: Submissions, announcer: Announcer) -> None:
        self._sessions = sessions
        self._submissions = submissions
        self._announcer = announcer

    def cancel(self, user_id: int, prompt_id: int) -> PromptRow:
        """Cancel a prompt that has not ended, for good.

        Raises:
            PromptNotFoundError, AlreadyEndedError: see `shared/prompts/submission.py`.
        """
        with self._sessions.begin() as session:
            finished = submission.cancel(session, user_id, prompt_id)
            prompt = queries.get(session, user_id, prompt_id)
        metrics.finished.labels(finished.change).inc()
        if finished.attempt == 0:  # a worker that is still answering it does this when it stops
            self._submissions.grant_next_turn(user_id)
        self._announcer.announce((user_id, announcements.from_finished(finished)))
        return prompt

    def delete(self, user_id: int, prompt_id: int) -> None:
        """Delete a prompt with its answer and its vector, whatever its status.

        Raises:
            PromptNotFoundError: it does not exist, or belongs to another user.
        """
        with self._sessions.begin() as session:
            deletion = submission.delete(session, user_id, prompt_id)
        if deletion.attempt == 0:
            self._submissions.grant_next_turn(user_id)
        self._announcer.announce((user_id, announcements.from_deletion(deletion)))
