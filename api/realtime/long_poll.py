"""`Prefer: wait=N` (RFC 7240): answering when the prompt has ended, or after N seconds with what there is."""

import re
import time

from api.http import requests
from api.http.schemas import MAX_WAIT_SECONDS
from api.services import Services
from shared.db.models import UNFINISHED
from shared.prompts import queries
from shared.prompts.queries import PromptRow

_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=[,;]|$)', re.IGNORECASE)


def preferred_wait(header: str | None) -> int | None:
    """The seconds a client wants to wait, at most MAX_WAIT_SECONDS; None if it has no such preference.

    A malformed preference is no error (RFC 7240, section 2): it is as if it were not there.
    """
    found = _WAIT.search(header or "")
    return None if found is None else min(int(found[1]), MAX_WAIT_SECONDS)


def wait_for_end(services: Services, user_id: int, prompt_id: int, seconds: float) -> PromptRow:
    """The prompt when it has ended, or as it is after so many seconds.

    Raises:
        PromptNotFoundError: there is none, or it was deleted meanwhile.
    """
    begun = time.monotonic()
    try:
        return _wait(services, user_id, prompt_id, begun + seconds)
    finally:
        requests.waited(time.monotonic() - begun)


def _wait(services: Services, user_id: int, prompt_id: int, deadline: float) -> PromptRow:
    with services.relay.subscribe(user_id) as news:
        prompt, seen = _read(services, user_id, prompt_id)
        while prompt.status in UNFINISHED:
            announcement = news.get(deadline - time.monotonic())
            if announcement is None:  # time is up
                return _read(services, user_id, prompt_id)[0]
            if announcement.seq is None or announcement.seq <= seen:
                continue
            # One without a prompt comes in place of one that was lost, which may have been of this one.
            if announcement.prompt_id in (None, prompt_id) or announcement.seq != seen + 1:
                prompt, seen = _read(services, user_id, prompt_id)
            else:
                seen = announcement.seq
        return prompt


def _read(services: Services, user_id: int, prompt_id: int) -> tuple[PromptRow, int]:
    with services.autocommit_engine.connect() as connection:
        return queries.get_with_seq(connection, user_id, prompt_id)
