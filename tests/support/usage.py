"""The ledger, and API keys with budgets."""

import os

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.engine import Sessions
from shared.db.models import DEFAULT_SCOPES, ApiKey, Prompt, Usage


def add_key(sessions: Sessions, user_id: int, *, monthly_tokens: int | None = None, name: str = "job") -> int:
    """Add an API key of the user. Returns its id."""
    with sessions.begin() as session:
        key = ApiKey(
            user_id=user_id,
            name=name,
            key_hash=os.urandom(32),
            prefix="pw_12345678",
            scopes=list(DEFAULT_SCOPES),
            monthly_tokens=monthly_tokens,
        )
        session.add(key)
        session.flush()
        return key.id


def ledger(session: Session, user_id: int) -> tuple[int, int, int]:
    """What the user's attempts used: finished prompts, tokens of prompts, tokens of answers."""
    sums = (func.sum(column) for column in (Usage.prompts, Usage.prompt_tokens, Usage.completion_tokens))
    row = session.execute(select(*sums).where(Usage.user_id == user_id)).one()
    return tuple(int(each or 0) for each in row)  # type: ignore[return-value]


def of_prompts(session: Session, user_id: int) -> tuple[int, int]:
    """The same tokens, as the user's prompts have them."""
    sums = (func.sum(column) for column in (Prompt.used_prompt_tokens, Prompt.used_completion_tokens))
    row = session.execute(select(*sums).where(Prompt.user_id == user_id)).one()
    return int(row[0] or 0), int(row[1] or 0)
