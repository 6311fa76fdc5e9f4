"""The queue in the database, for tests about whose prompt is claimed next."""

import itertools
from datetime import timedelta

from shared.accounts import users
from shared.db.engine import Sessions
from shared.db.models import DEFAULT_ROUTE, Priority
from shared.prompts import claims, submission
from shared.prompts.submission import NO_LIMITS, NewPrompt, PromptLimits
from tests.support.lifecycle import MINUTE


class UserQueue:
    """The queue in the database, with users by name."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self._ids: dict[str, int] = {}

    def submit(
        self, *names: str, priority: Priority = Priority.DEFAULT, limits: PromptLimits = NO_LIMITS
    ) -> list[int | None]:
        """Submit a prompt for each name, all in one group. Returns their ids."""
        new = [NewPrompt(self.user(name), "Hi", False, request_id=name, priority=priority) for name in names]
        with self.sessions.begin() as session:
            stored = submission.submit(session, new, grace=MINUTE, attempt_limit=5, limits=limits)
        return [each and each.id for each in stored]

    def claim(
        self, size: int = 1, *, low_share: int = 0, low_limit: int | None = None, lease: timedelta = MINUTE
    ) -> list[str]:
        """Claim the next prompts. Returns the names of their users."""
        with self.sessions.begin() as session:
            claimed = claims.claim(session, DEFAULT_ROUTE, size, lease, low_share=low_share, low_limit=low_limit)
            return [claim.request_id for claim in claimed.claims]

    def user(self, name: str) -> int:
        """The id of the user with this name, who is added if necessary."""
        if name not in self._ids:
            with self.sessions.begin() as session:
                self._ids[name] = users.create(session, name, "hash").id
        return self._ids[name]

    def claim_all(self) -> str:
        """Claim all prompts, one by one. Returns the names of their users, joined."""
        return "".join(itertools.chain.from_iterable(iter(self.claim, [])))
