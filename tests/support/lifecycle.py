"""The steps of a prompt's life, for one prompt at a time."""

from datetime import timedelta

from sqlalchemy.orm import Session

from shared import attempts, prompts
from shared.attempts import Answer, Claim, Response
from shared.feed import Ending
from shared.library import PromptRow
from shared.prompts import Draft

MINUTE = timedelta(minutes=1)


def submit(
    session: Session,
    user_id: int,
    prompt_text: str = "Hi",
    *,
    websocket: bool = True,
    grace: timedelta = MINUTE,
    attempt_limit: int = 5,
) -> PromptRow:
    """Stores a prompt."""
    draft = Draft(user_id, prompt_text, websocket, request_id="r")
    return prompts.submit(session, [draft], grace=grace, attempt_limit=attempt_limit)[0]


def claim(session: Session, prompt_id: int, lease: timedelta = MINUTE) -> Claim:
    """Takes a prompt that waits."""
    (held,) = attempts.claim(session, [prompt_id], lease)
    return held


def complete(
    session: Session, held: Claim, response_text: str, *, embedder: str = "test", vector: bytes = b"\0\0\0\0"
) -> Ending | None:
    """Answers a prompt; None if the claim no longer holds."""
    ended = attempts.complete(session, [Answer(held, Response(response_text, "test"), embedder, vector)])
    return ended.endings[0] if ended.endings else None
