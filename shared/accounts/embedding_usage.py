"""What `/v1/embeddings` uses. It makes no prompts, so its tokens are added to the ledger by themselves.

They are added before the texts are embedded, so that concurrent calls cannot exceed a budget, and taken back if the
embedder fails. The route in the ledger is the embedder's name. There is no price of embeddings: they cost nothing.
"""

from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.accounts import budgets
from shared.accounts.budgets import Reservation
from shared.accounts.usage import add_to_ledger
from shared.prompts import scheduling

_USED = """(
    SELECT CAST(:user_id AS bigint) AS user_id, CAST(:key_id AS bigint) AS key_id, CAST(:embedder AS text) AS route,
        CAST(:tokens AS bigint) AS used_prompt_tokens, 0 AS used_completion_tokens, 0 AS cost
) AS embedded"""
_ADD = text(add_to_ledger(_USED, at="statement_timestamp()", prompts=0))


class EmbeddedTexts(NamedTuple):
    """A call: for which user and API key, by which embedder, and how many tokens."""

    user_id: int
    key_id: int | None
    embedder: str
    tokens: int


def add(session: Session, texts: EmbeddedTexts, *, user_budget: int | None) -> None:
    """Add the tokens of a call to the ledger, if its budgets have room for them. The caller commits.

    Raises:
        BudgetExceededError: they have not.
    """
    scheduling.lock_users(session, [texts.user_id])
    wanted = Reservation(texts.user_id, texts.key_id, texts.tokens)
    (exceeded,) = budgets.check(session, [wanted], user_budget)
    if exceeded is not None:
        raise exceeded
    _record(session, texts)


def take_back(session: Session, texts: EmbeddedTexts) -> None:
    """Take the tokens of a call that has failed from the ledger again."""
    _record(session, texts._replace(tokens=-texts.tokens))


def _record(session: Session, texts: EmbeddedTexts) -> None:
    session.execute(_ADD, texts._asdict() | {"key_id": texts.key_id or 0})
