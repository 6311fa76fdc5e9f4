"""What is derived from a user's vectors, by this VECTOR_STORE or by one that was used before."""

from shared.db.engine import Sessions
from shared.search.faiss.segment_storage import SegmentStorage
from shared.search.pgvector import tables


class DerivedVectors:
    """Segments, and the rows and indexes of pgvector."""

    def __init__(self, sessions: Sessions, storage: SegmentStorage) -> None:
        self._sessions = sessions
        self._storage = storage

    def delete(self, user_id: int) -> bool:
        """Delete all of it. Returns False if something is left that cannot be deleted now.

        Hold the user's `index_lock`: otherwise a segment could be added meanwhile.
        """
        has_no_segments = self._storage.delete_all(self._sessions, user_id)
        has_no_rows = tables.delete_user(self._sessions, user_id)
        return has_no_segments and has_no_rows
