"""The address blocks from which each user has logged in, so that attacks from elsewhere do not lock the user out.

The MAX_BLOCKS_PER_USER most recent blocks of a user are kept, each for RETENTION after its last login.
"""

from datetime import timedelta

from sqlalchemy import delete, exists, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.accounts import users
from shared.db.engine import Executor
from shared.db.models import LoginBlock

MAX_BLOCKS_PER_USER = 32
RETENTION = timedelta(days=180)


def remember(session: Session, user_id: int, block: str) -> None:
    """Record a successful login of this user from this block, and forget the user's oldest blocks beyond the limit."""
    session.execute(
        upsert(LoginBlock)
        .values(user_id=user_id, address_block=block)
        .on_conflict_do_update(
            index_elements=[LoginBlock.user_id, LoginBlock.address_block], set_={"last_login_at": func.now()}
        )
    )
    oldest = (
        select(LoginBlock.user_id, LoginBlock.address_block)
        .where(LoginBlock.user_id == user_id)
        .order_by(LoginBlock.last_login_at.desc())
        .offset(MAX_BLOCKS_PER_USER)
        # Of two logins at the same time, one may be about to renew what the other would delete.
        .with_for_update(skip_locked=True)
    )
    session.execute(delete(LoginBlock).where(tuple_(LoginBlock.user_id, LoginBlock.address_block).in_(oldest)))


def is_known(executor: Executor, username: str, block: str) -> bool:
    """Whether the user of this name has logged in from this block."""
    found = exists().where(LoginBlock.user_id == users.id_of(username), LoginBlock.address_block == block)
    return bool(executor.scalar(select(found)))


def purge(session: Session) -> None:
    """Delete blocks that were not used for RETENTION."""
    session.execute(delete(LoginBlock).where(LoginBlock.last_login_at < func.now() - RETENTION))
