"""Making replicas from what Postgres has: segments, and the log besides them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
from sqlalchemy import Connection, Engine

from shared.db.engine import Sessions
from shared.providers import Embedders
from shared.search import vector_log
from shared.search.faiss.replica import Replica
from shared.search.faiss.segment import Candidates, DamagedSegmentError, Segment
from shared.search.faiss.segment_storage import Sealed, Segments, SegmentUnavailableError, read
from shared.search.store import Offload
from shared.search.vector_log import END, Changes, State

logger = structlog.get_logger(__name__)


class Look(NamedTuple):
    """What one query tells before an answer."""

    state: State
    originals: Changes


class Loader:
    """Reads replicas.

    Args:
        autocommit_engine: An engine in autocommit, for what one statement tells.
        on_damage: Called with a user's id when one of their segments was found damaged, which was noted; must not fail.
    """

    def __init__(
        self,
        sessions: Sessions,
        autocommit_engine: Engine,
        embedders: Embedders,
        segments: Segments,
        *,
        offload: Offload,
        on_damage: Callable[[int], object],
    ) -> None:
        self._sessions = sessions
        self._autocommit_engine = autocommit_engine
        self._embedders = embedders
        self._segments = segments
        self._offload = offload
        self._on_damage = on_damage

    def look(self, user_id: int, replica: Replica, candidates: Candidates) -> Look:
        """The user's state, and the candidates' originals: one query."""
        with self._autocommit_engine.connect() as connection:
            return Look(*vector_log.look(connection, user_id, replica.embedder, candidates.seqs.tolist()))

    def catch_up(self, user_id: int, replica: Replica, seq: int) -> None:
        """Brings the replica up to this number of the user's feed, if it still fits."""
        while replica.seq < seq:
            with self._autocommit_engine.connect() as connection:
                changes = vector_log.after(connection, user_id, replica.embedder, replica.seq)
            replica.take(changes)
            if changes.count < vector_log.BATCH:
                replica.reach(seq)

    def load(self, user_id: int, old: Replica | None) -> Replica:
        """A replica of the user as of now. What the old one has opened is not read again."""
        while True:
            with self._sessions() as session:
                connection = session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
                state = vector_log.state(connection, user_id)
                embedder = self._embedders.resolve(state.embedder)
                sealed = [
                    each for each in self._segments.of_user(connection, user_id, embedder.name) if not each.damaged
                ]
                segments, damaged = self._open(connection, sealed, old)
                if not damaged:
                    held = [each for each in sealed if each.id in segments]
                    replica = Replica(embedder, state, held, segments)
                    for each in held:
                        self._read_log(connection, user_id, replica, last=each.first_seq - 1)
                        replica.reach(each.last_seq)
                    with replica.filling(state.seq):
                        self._read_log(connection, user_id, replica)
                    replica.reach(state.seq)
                    return replica
            self._report(user_id, damaged)

    def _open(
        self, connection: Connection, sealed: Sequence[Sealed], old: Replica | None
    ) -> tuple[dict[int, Segment], list[Sealed]]:
        """The segments by their ids, without those that cannot be read; and which of these are damaged."""
        known = {} if old is None else old.segments
        segments, damaged = {}, []
        for each in sealed:
            try:
                segments[each.id] = known[each.id] if each.id in known else self._read(connection, each)
            except DamagedSegmentError as error:
                logger.error("segment damaged; its vectors are read from the log", segment_id=each.id, error=str(error))
                damaged.append(each)
            except SegmentUnavailableError as error:
                logger.error("segment away; its vectors are read from the log", segment_id=each.id, error=str(error))
        return segments, damaged

    def _read(self, connection: Connection, sealed: Sealed) -> Segment:
        payload = self._segments.payload(connection, sealed)
        made: Segment = self._offload(read, sealed, payload)
        return made

    def _read_log(self, connection: Connection, user_id: int, replica: Replica, *, last: int = END) -> None:
        """Gives the replica what the log has after it, up to a number."""
        if replica.seq >= last:
            return
        for changes in vector_log.stream(connection, user_id, replica.embedder, first=replica.seq + 1, last=last):
            replica.take(changes)

    def _report(self, user_id: int, damaged: Sequence[Sealed]) -> None:
        with self._sessions.begin() as session:
            for each in damaged:
                self._segments.mark_damaged(session.connection(), each)
        self._on_damage(user_id)
