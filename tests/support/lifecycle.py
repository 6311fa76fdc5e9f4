"""The steps of a prompt's lifecycle, for a single prompt."""

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db.models import DEFAULT_ROUTE
from shared.prompts import claims, scheduling, submission
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
    (stored,) = submission.submit(session, [draft], grace=grace, attempt_limit=attempt_limit)
    assert stored is not None
    return stored


def claim(session: Session, prompt_id: int, lease: timedelta = MINUTE) -> Claim:
    """Claim a queued prompt, before all others."""
    put_first(session, prompt_id)
    (claim,) = claims.claim(session, DEFAULT_ROUTE, 1, lease).claims
    assert claim.id == prompt_id
    return claim


def put_first(session: Session, prompt_id: int) -> None:
    """Let the prompt, if it has a turn, be the next that is claimed."""
    first = text("""
        UPDATE prompts SET turn = (SELECT coalesce(min(turn), 0) - 1 FROM prompts) WHERE id = :id AND turn IS NOT NULL
    """)
    session.execute(first, {"id": prompt_id})


def claim_any(session: Session, size: int = 1, lease: timedelta = MINUTE, *, low_share: int = 0) -> list[Claim]:
    """Claim the next prompts, as far as there are any."""
    return claims.claim(session, DEFAULT_ROUTE, size, lease, low_share=low_share).claims


class RecordingQueue:
    """Stands in for the queue, and records for how many prompts workers were woken up."""

    def __init__(self) -> None:
        self.woken: list[int] = []

    def wake(self, route: str, count: int) -> bool:
        if count > 0:
            self.woken.append(count)
        return True

    def length(self, route: str) -> int:
        """How many messages wait: none, because what it records is handled at once."""
        return 0


def complete(
    session: Session, claim: Claim, response_text: str, *, embedder: str = "test", vector: bytes | None = b"\0\0\0\0"
) -> FinishedPrompt | None:
    """Complete a prompt, without a vector if that is None. Returns None if the claim no longer holds."""
    outcome = Outcome(
        claim.id,
        claim.attempt,
        embedder=None if vector is None else embedder,
        vector=vector,
        expected_embedder=claim.embedder,
        used=claim.meter.used,
        answer=Answer(response_text, "test"),
    )
    finished = claims.complete(session, [outcome]).finished
    return finished[0] if finished else None


def end_backoffs(session: Session) -> None:
    """Let the backoffs after failed attempts be over, and give the prompts their turns, as the reaper does."""
    session.execute(text("UPDATE prompts SET not_before = now() WHERE not_before IS NOT NULL"))
    waiting = scheduling.users_without_turn(session)
    scheduling.grant_turns(session, waiting, grace=MINUTE, running_limit=None)
