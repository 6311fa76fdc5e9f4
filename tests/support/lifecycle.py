"""The steps of a prompt's lifecycle, for a single prompt."""

from datetime import timedelta

from sqlalchemy.orm import Session

from shared.prompts import claims, submission
from shared.prompts.answer import Answer
from shared.prompts.claims import Claim
from shared.prompts.completion import Outcome
from shared.prompts.feed import FinishedPrompt
from shared.prompts.queries import PromptRow
from shared.prompts.submission import NewPrompt

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
    """Store a prompt."""
    draft = NewPrompt(user_id, prompt_text, websocket, request_id="r")
    return submission.submit(session, [draft], grace=grace, attempt_limit=attempt_limit)[0]


def claim(session: Session, prompt_id: int, lease: timedelta = MINUTE) -> Claim:
    """Claim a queued prompt."""
    (claim,) = claims.claim(session, [prompt_id], lease)
    return claim


def complete(
    session: Session, claim: Claim, response_text: str, *, embedder: str = "test", vector: bytes = b"\0\0\0\0"
) -> FinishedPrompt | None:
    """Complete a prompt. Returns None if the claim no longer holds."""
    outcome = Outcome(
        claim.id,
        claim.attempt,
        embedder=embedder,
        vector=vector,
        expected_embedder=claim.embedder,
        answer=Answer(response_text, "test"),
    )
    finished = claims.complete(session, [outcome]).finished
    return finished[0] if finished else None
