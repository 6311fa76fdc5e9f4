"""Reading a user's prompts. Changing them is `shared/prompts.py`."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.errors import PromptNotFoundError
from shared.models import Prompt, Status, User


def get(session: Session, user_id: int, prompt_id: int) -> Prompt:
    """The user's prompt.

    Raises:
        PromptNotFoundError: there is none, or it is somebody else's.
    """
    prompt = session.scalar(select(Prompt).where(Prompt.id == prompt_id, Prompt.user_id == user_id))
    if prompt is None:
        raise PromptNotFoundError
    return prompt


def get_with_seq(session: Session, user_id: int, prompt_id: int) -> tuple[Prompt, int]:
    """The user's prompt, and the newest number of their feed at that moment.

    Raises:
        PromptNotFoundError: there is none, or it is somebody else's.
    """
    row = session.execute(
        select(Prompt, User.seq)
        .join(User, User.id == Prompt.user_id)
        .where(Prompt.id == prompt_id, Prompt.user_id == user_id)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if row is None:
        raise PromptNotFoundError
    return row[0], row[1]


def page(
    session: Session, user_id: int, *, limit: int, status: Status | None = None, before: int | None = None
) -> Sequence[Prompt]:
    """The user's prompts, newest first: at most `limit`, of one status, with ids below `before`."""
    query = select(Prompt).where(Prompt.user_id == user_id).order_by(Prompt.id.desc()).limit(limit)
    if status is not None:
        query = query.where(Prompt.status == status)
    if before is not None:
        query = query.where(Prompt.id < before)
    return session.scalars(query).all()


def completed(session: Session, user_id: int, prompt_ids: Sequence[int]) -> dict[int, Prompt]:
    """Those of the user's prompts that are completed, by id."""
    query = select(Prompt).where(
        Prompt.id.in_(prompt_ids), Prompt.user_id == user_id, Prompt.status == Status.COMPLETED
    )
    return {prompt.id: prompt for prompt in session.scalars(query)}
