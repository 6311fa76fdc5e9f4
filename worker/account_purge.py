"""The task that purges a deleted account: everything that `shared/accounts/deletion.py` has left.

It may be interrupted at any moment, and is requested again by the maintenance until the user's row is gone, which is
deleted last. A row that refers to something outside PostgreSQL is deleted after that: a segment's row after its file.
"""

import time
from collections.abc import Callable

import structlog

from shared.accounts import purge
from shared.db.engine import Sessions
from shared.messaging.partial_text import PartialText
from shared.search.derived_vectors import DerivedVectors
from shared.search.index_lock import index_lock
from shared.search.store import VectorStore

log = structlog.get_logger(__name__)

#: How long one task works on an account; then it requests another.
SLICE_SECONDS = 20.0


class AccountPurge:
    """Purges deleted accounts.

    Args:
        store: The vectors that this process holds.
        request: Has a worker do the next slice.
    """

    def __init__(
        self,
        sessions: Sessions,
        partial_text: PartialText,
        store: VectorStore,
        derived: DerivedVectors,
        request: Callable[[int], object],
    ) -> None:
        self._sessions = sessions
        self._partial_text = partial_text
        self._store = store
        self._derived = derived
        self._request = request

    def purge(self, user_id: int) -> bool:
        """Purge an account, for about SLICE_SECONDS. Returns whether nothing of it is left.

        Does nothing while another process works on the account or on its vectors.
        """
        deadline = time.monotonic() + SLICE_SECONDS
        with index_lock(self._sessions, user_id) as acquired:
            if not acquired or not self._is_deleted(user_id):
                return False
            if not self._delete_rows(user_id, deadline):
                self._request(user_id)
                return False
            self._store.drop_deleted()
            is_empty = self._derived.delete(user_id)
            is_gone = is_empty and purge.delete_user(self._sessions, user_id)
        log.info("account purged", user_id=user_id, is_gone=is_gone)
        return is_gone

    def _is_deleted(self, user_id: int) -> bool:
        with self._sessions() as session:
            return purge.is_deleted(session, user_id)

    def _delete_rows(self, user_id: int, deadline: float) -> bool:
        """Delete rows until the deadline. Returns whether none is left."""
        for attempts in purge.delete_prompts(self._sessions, user_id):
            self._partial_text.delete(attempts)
            if time.monotonic() > deadline:
                return False
        return all(time.monotonic() <= deadline for _ in purge.delete_rows(self._sessions, user_id))
