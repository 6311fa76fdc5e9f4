"""Loads replicas from Postgres: segments, and the log for all other vectors."""

from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import Connection, Engine

from shared.db.engine import Sessions
from shared.providers import Embedders
from shared.search import vector_log
from shared.search.faiss.replica import Replica
from shared.search.faiss.segment import Candidates, DamagedSegmentError, Segment
from shared.search.faiss.segment_storage import (
    SegmentInfo,
    SegmentStorage,
    SegmentUnavailableError,
    verify_and_decode,
)
from shared.search.store import Offload
from shared.search.vector_log import MAX_SEQ, Changes, Snapshot

logger = structlog.get_logger(__name__)


class Loader:
    """Loads replicas and brings them up to date.

    Args:
        autocommit_engine: An engine in autocommit, for queries of one statement.
        on_damage: Called with a user's id after one of their segments was marked as damaged; must not fail.
    """

    def __init__(
        self,
        sessions: Sessions,
        autocommit_engine: Engine,
        embedders: Embedders,
        storage: SegmentStorage,
        *,
        offload: Offload,
        on_damage: Callable[[int], object],
    ) -> None:
        self._sessions = sessions
        self._autocommit_engine = autocommit_engine
        self._embedders = embedders
        self._storage = storage
        self._offload = offload
        self._on_damage = on_damage

    def fetch_snapshot(self, user_id: int, replica: Replica, candidates: Candidates) -> Snapshot:
        """Return the user's state and the candidates' originals, by one query."""
        with self._autocommit_engine.connect() as connection:
            return vector_log.fetch_snapshot(connection, user_id, replica.embedder, candidates.seqs.tolist())

    def fetch_vectors(self, user_id: int, replica: Replica, prompt_ids: list[int]) -> Changes:
        """Return the vectors of these prompts, by the replica's embedder."""
        with self._autocommit_engine.connect() as connection:
            return vector_log.fetch_vectors(connection, user_id, replica.embedder, prompt_ids)

    def find_deleted(self, user_ids: Sequence[int]) -> Sequence[int]:
        """Those of these users whose accounts are deleted."""
        if not user_ids:
            return []
        with self._autocommit_engine.connect() as connection:
            return vector_log.find_deleted(connection, user_ids)

    def catch_up(self, user_id: int, replica: Replica, seq: int) -> None:
        """Apply what the log has up to this number. The replica must be current."""
        while replica.seq < seq:
            with self._autocommit_engine.connect() as connection:
                changes = vector_log.fetch_after(connection, user_id, replica.embedder, replica.seq)
            replica.apply(changes)
            if changes.count < vector_log.BATCH_ROWS:
                replica.advance_to(seq)

    def load(self, user_id: int, old: Replica | None) -> Replica:
        """Load a replica of the user as of now. It shares the segments that the old one has opened."""
        while True:
            with self._sessions() as session:
                connection = session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
                state = vector_log.fetch_state(connection, user_id)
                embedder = self._embedders.resolve(state.embedder)
                listed = self._storage.list_for_user(connection, user_id, embedder.name)
                undamaged = [info for info in listed if not info.damaged]
                segments, damaged = self._open(connection, undamaged, old)
                if not damaged:
                    opened = [info for info in undamaged if info.id in segments]
                    replica = Replica(embedder, state, opened, segments)
                    for info in opened:
                        self._read_log(connection, user_id, replica, last=info.first_seq - 1)
                        replica.advance_to(info.last_seq)
                    with replica.bulk_load(state.seq):
                        self._read_log(connection, user_id, replica)
                    replica.advance_to(state.seq)
                    return replica
            self._report_damage(user_id, damaged)

    def _open(
        self, connection: Connection, infos: Sequence[SegmentInfo], old: Replica | None
    ) -> tuple[dict[int, Segment], list[SegmentInfo]]:
        """Return the readable segments by id, and the damaged ones."""
        opened = {} if old is None else old.segments
        segments, damaged = {}, []
        for info in infos:
            try:
                segments[info.id] = opened[info.id] if info.id in opened else self._read(connection, info)
            except DamagedSegmentError as error:
                logger.error("segment damaged, reading its vectors from the log", segment_id=info.id, error=str(error))
                damaged.append(info)
            except SegmentUnavailableError as error:
                logger.error(
                    "segment unavailable, reading its vectors from the log", segment_id=info.id, error=str(error)
                )
        return segments, damaged

    def _read(self, connection: Connection, info: SegmentInfo) -> Segment:
        payload = self._storage.read_payload(connection, info)
        segment: Segment = self._offload(verify_and_decode, info, payload)
        return segment

    def _read_log(self, connection: Connection, user_id: int, replica: Replica, *, last: int = MAX_SEQ) -> None:
        """Apply what the log has after the replica's number, up to `last`."""
        if replica.seq >= last:
            return
        for changes in vector_log.stream(connection, user_id, replica.embedder, first=replica.seq + 1, last=last):
            replica.apply(changes)

    def _report_damage(self, user_id: int, damaged: Sequence[SegmentInfo]) -> None:
        with self._sessions.begin() as session:
            for info in damaged:
                self._storage.mark_damaged(session.connection(), info)
        self._on_damage(user_id)
