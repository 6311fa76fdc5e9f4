"""`Prefer: wait=N` (RFC 7240): answering as soon as the prompt has ended, or after N seconds as it is."""

import re
import time
from contextlib import AbstractContextManager, nullcontext

from sqlalchemy import Engine

from api.http import requests
from api.http.prompt_schemas import MAX_WAIT_SECONDS
from api.intake.user_slots import UserSlots
from api.realtime.relay import Relay
from api.realtime.single_flight import SingleFlight
from shared.db.models import UNFINISHED
from shared.prompts import queries
from shared.prompts.queries import PromptRow

_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=[,;]|$)', re.IGNORECASE)


def preferred_wait(header: str | None) -> int | None:
    """The seconds that a client prefers to wait, at most MAX_WAIT_SECONDS; None without such a preference.

    A malformed preference is ignored (RFC 7240, section 2).
    """
    found = _WAIT.search(header or "")
    return None if found is None else min(int(found[1]), MAX_WAIT_SECONDS)


class LongPoll:
    """Waits for prompts to end. Requests that wait for the same prompt share its reads."""

    def __init__(self, relay: Relay, engine: Engine, slots: UserSlots) -> None:
        self._relay = relay
        self._engine = engine
        self._slots = slots
        self._read = SingleFlight(self._fetch)

    def slot(self, user_id: int, seconds: float | None) -> AbstractContextManager[None]:
        """Hold one of the user's slots within the block, if the request waits: if `seconds` is not None.

        Raises:
            UserLimitError: the user has too many waiting requests and streams.
        """
        return nullcontext() if seconds is None else self._slots.hold(user_id)

    def wait_for_end(self, user_id: int, prompt_id: int, seconds: float) -> PromptRow:
        """Return the prompt as soon as it has ended, or as it is after `seconds`.

        Raises:
            PromptNotFoundError: there is no such prompt, or it was deleted meanwhile.
        """
        started = time.monotonic()
        try:
            return self._wait(user_id, prompt_id, started + seconds)
        finally:
            requests.exclude_wait(time.monotonic() - started)

    def _wait(self, user_id: int, prompt_id: int, deadline: float) -> PromptRow:
        with self._relay.subscribe(user_id) as subscription:
            prompt, seen = self._read((user_id, prompt_id))
            while prompt.status in UNFINISHED:
                announcement = subscription.get(deadline - time.monotonic())
                if announcement is None:  # time is up
                    return self._read((user_id, prompt_id))[0]
                if announcement.is_login_ended:  # perhaps because the account is deleted
                    prompt, seen = self._read((user_id, prompt_id))
                    continue
                if announcement.seq is None or (announcement.seq <= seen and not announcement.restored):
                    continue
                # One without a prompt replaces a lost one, which may have been about this prompt.
                if announcement.prompt_id in (None, prompt_id) or announcement.seq != seen + 1:
                    prompt, seen = self._read((user_id, prompt_id))
                else:
                    seen = announcement.seq
            return prompt

    def _fetch(self, ids: tuple[int, int]) -> tuple[PromptRow, int]:
        with self._engine.connect() as connection:
            return queries.get_with_seq(connection, *ids)
