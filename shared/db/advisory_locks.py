"""The first keys of the advisory locks in PostgreSQL: what a lock is for. The second key is a user or a route."""

from collections.abc import Collection

from sqlalchemy import text
from sqlalchemy.orm import Session

#: What is derived from a user's vector log, by the user's id (`shared/search/index_lock.py`).
INDEXES = 7_769
#: The slots of a route, by a hash of its name (`shared/prompts/concurrency.py`).
SLOTS = 7_770
#: Finishing prompts of a user, by a hash of the user's id (`shared/prompts/completion.py`).
FINISHES = 7_771
#: The turns and limits of a user, by a hash of the user's id (`shared/prompts/scheduling.py`).
TURNS = 7_772

_LOCK_FINISHES = text(f"""
    SELECT pg_advisory_xact_lock({FINISHES}, lock)
    FROM (SELECT DISTINCT hashint8(id) AS lock FROM unnest(CAST(:user_ids AS bigint[])) AS id ORDER BY lock) AS locks
""")  # noqa: S608  # nosec B608


def lock_finishes(session: Session, user_ids: Collection[int]) -> None:
    """Keep prompts of these users from being finished before the commit. `shared/prompts/completion.py` says why.

    The caller has locked its prompts, and locks the users next.
    """
    session.execute(_LOCK_FINISHES, {"user_ids": list(user_ids)})
