"""Sealing: making segments of a user's log, in a worker, and merging small ones into larger ones.

As in a log-structured merge tree with tiers (O'Neil et al., 1996): a new segment takes in those before it that are not
much larger, so that a user with n vectors has about log n segments, and a vector is encoded anew about as often.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import structlog
from sqlalchemy import Connection, func, select, text, update

from shared.db.engine import Sessions, long_snapshot
from shared.db.models import User, VectorLogEntry
from shared.providers import Embedder, Embedders
from shared.search import vector_log
from shared.search.faiss import segment
from shared.search.faiss.replica import HOLLOW
from shared.search.faiss.segment_storage import Sealed, Segments

logger = structlog.get_logger(__name__)

#: A segment takes in the one before it if that has at most so many times its vectors. With 2, a million vectors that
#: came one by one are in at most 4 segments, and were encoded 4.5 times each; with 1 in 5, 3.1 times; with 4 in 3, 5.8.
MERGE_RATIO = 2
#: Fewer vectors are not worth a segment.
LEAST = 256

_LOCKS = 7_769  # the advisory locks of our own kind


@dataclass(frozen=True, slots=True)
class SegmentRange:
    """A range of a log's numbers, with a segment or without, and how many vectors the log still has in it."""

    first: int
    last: int
    live: int
    sealed: Sealed | None = None

    @property
    def needs_compaction(self) -> bool:
        """Whether its segment is damaged, or much of it deleted."""
        return self.sealed is not None and (self.sealed.damaged or self.live < (1 - HOLLOW) * self.sealed.count)


@dataclass(frozen=True, slots=True)
class Compaction:
    """A range to make one segment of, in place of what it has; of none, if hardly any vector is left in it."""

    first: int
    last: int
    live: int
    replaces: tuple[Sealed, ...]


def plan(pieces: Sequence[SegmentRange], seal_from: int) -> list[Compaction]:
    """What is to be done. `pieces` are all of a log, in order."""
    if sum(piece.live for piece in pieces if piece.sealed is None) < seal_from:
        return [_compaction([piece]) for piece in pieces if piece.needs_compaction]
    runs: list[list[SegmentRange]] = []
    run: list[SegmentRange] = []
    for piece in reversed(pieces):
        wanted = piece.sealed is None or piece.needs_compaction
        if not wanted and (not run or piece.live > MERGE_RATIO * sum(each.live for each in run)):
            run = []
            continue
        if not run:
            runs.append(run)
        run.append(piece)
    jobs = [_compaction(run[::-1]) for run in runs]
    return [job for job in jobs if job.replaces or job.live >= LEAST]


def _compaction(run: Sequence[SegmentRange]) -> Compaction:
    replaced = tuple(piece.sealed for piece in run if piece.sealed is not None)
    return Compaction(run[0].first, run[-1].last, sum(piece.live for piece in run), replaced)


class Sealer:
    """Seals the logs of users.

    Args:
        seal_from: How many vectors without a segment are worth one.
    """

    def __init__(self, sessions: Sessions, embedders: Embedders, segments: Segments, *, seal_from: int) -> None:
        self._sessions = sessions
        self._embedders = embedders
        self._segments = segments
        self._seal_from = seal_from

    def seal(self, user_id: int) -> int:
        """Makes the segments that the user's log needs by now. Returns how many.

        It does nothing where another process is at it.
        """
        with index_lock(self._sessions, user_id) as ours:
            if not ours:
                return 0
            with long_snapshot(self._sessions) as connection:
                state = vector_log.state(connection, user_id)
                embedder = self._embedders.resolve(state.embedder)
                pieces = self._pieces(connection, user_id, embedder, state.seq)
                jobs = plan(pieces, self._seal_from)
                payloads = [self._build(connection, user_id, embedder, job) for job in jobs]
            if not jobs:
                return 0
            replaced = [sealed for job in jobs for sealed in job.replaces]
            with self._sessions() as session:
                connection = session.connection()
                before = [piece.sealed for piece in pieces if piece.sealed is not None]
                if self._segments.of_user(connection, user_id, embedder.name) != before:
                    return 0  # the lock was lost with its connection, and another process was faster
                self._segments.delete(connection, replaced)
                for job, payload in zip(jobs, payloads, strict=True):
                    if payload is not None:
                        covers = (job.first, job.last)
                        self._segments.add(connection, user_id, embedder.name, covers, job.live, payload)
                # Last, because whoever completes the user's prompts waits for this lock.
                session.execute(update(User).where(User.id == user_id).values(index_version=User.index_version + 1))
                session.commit()
            self._segments.clean_up(replaced)
            return len(jobs)

    def _pieces(self, connection: Connection, user_id: int, embedder: Embedder, newest: int) -> list[SegmentRange]:
        pieces: list[SegmentRange] = []
        reached = 0
        for sealed in self._segments.of_user(connection, user_id, embedder.name):
            pieces.append(self._piece(connection, user_id, embedder, reached + 1, sealed.first_seq - 1))
            pieces.append(self._piece(connection, user_id, embedder, sealed.first_seq, sealed.last_seq, sealed))
            reached = sealed.last_seq
        pieces.append(self._piece(connection, user_id, embedder, reached + 1, newest))
        return [piece for piece in pieces if piece.last >= piece.first]

    def _piece(
        self,
        connection: Connection,
        user_id: int,
        embedder: Embedder,
        first: int,
        last: int,
        sealed: Sealed | None = None,
    ) -> SegmentRange:
        row = VectorLogEntry
        mine = (row.user_id == user_id, row.seq.between(first, last), row.embedder == embedder.name)
        live = connection.execute(select(func.count()).select_from(row).where(*mine)).scalar_one()
        return SegmentRange(first, last, live, sealed)

    def _build(self, connection: Connection, user_id: int, embedder: Embedder, job: Compaction) -> bytes | None:
        if job.live < LEAST:
            return None
        of = (connection, user_id, embedder)
        one_in = max(1, job.live // segment.SAMPLE)
        sample = np.concatenate(
            [part.vectors for part in vector_log.stream(*of, first=job.first, last=job.last, one_in=one_in)]
        )
        if len(sample) < segment.MIN_SAMPLE:  # because most of them are damaged
            return None
        parts = vector_log.stream(*of, first=job.first, last=job.last)
        payload = segment.build(sample, ((part.seqs, part.vectors) for part in parts), job.live)
        logger.info("sealed", user_id=user_id, vectors=job.live, replaced=len(job.replaces), nbytes=len(payload))
        return payload


@contextmanager
def index_lock(sessions: Sessions, user_id: int) -> Iterator[bool]:
    """Tells whether this process alone may now change what is derived from the user's log."""
    lock = {"kind": _LOCKS, "user": user_id % 2**31}
    with sessions() as session:
        # Of its own connection: what is done under it must begin its transaction afterwards, to see what others did.
        connection = session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        ours = connection.execute(text("SELECT pg_try_advisory_lock(:kind, :user)"), lock).scalar_one()
        try:
            yield bool(ours)
        finally:
            if ours:
                connection.execute(text("SELECT pg_advisory_unlock(:kind, :user)"), lock)
