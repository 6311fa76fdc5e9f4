"""The room of one user in an API process: who gets the user's announcements."""

from dataclasses import dataclass, field

from api.realtime.subscription import Subscriber
from shared.messaging.announcements import Announcement

#: How many finished prompts a room remembers.
_MAX_FINISHED = 256


@dataclass(slots=True)
class Room:
    """The subscribers of one user in this process, the newest number they were sent, and recently finished prompts."""

    subscribers: set[Subscriber] = field(default_factory=set)
    seq: int = 0
    finished: dict[int, int] = field(default_factory=dict)

    def admits(self, announcement: Announcement) -> bool:
        """Record an announcement. Returns False for a delta of an attempt that has finished, which must not be sent."""
        prompt_id, attempt = announcement.prompt_id, announcement.attempt
        if announcement.seq is None:
            return prompt_id is None or self.finished.get(prompt_id, -1) < attempt
        self.seq = max(self.seq, announcement.seq)
        if prompt_id is not None:
            self.finished[prompt_id] = attempt
            if len(self.finished) > _MAX_FINISHED:
                del self.finished[next(iter(self.finished))]
        return True

    def reset(self, seq: int) -> None:
        """Go back to this number, because the database has no higher one any more."""
        self.seq = seq
        self.finished.clear()
