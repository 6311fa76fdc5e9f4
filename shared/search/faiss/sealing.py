"""Seals users' vector logs in a worker: builds segments, and merges small ones into larger ones.

As in a tiered log-structured merge tree (O'Neil et al., 1996): a new segment absorbs the preceding ones that are not
much larger, so that a user with n vectors has about log n segments, and a vector is encoded about as often.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import structlog
from sqlalchemy import Connection, func, select, update

from shared.db.engine import Sessions, long_snapshot
from shared.db.models import User, VectorLogEntry
from shared.providers import Embedder, Embedders
from shared.search import vector_log
from shared.search.faiss import segment
from shared.search.faiss.replica import MAX_DELETED_SHARE
from shared.search.faiss.segment_storage import SegmentInfo, SegmentStorage
from shared.search.index_lock import index_lock

logger = structlog.get_logger(__name__)

#: A segment absorbs the one before it if that has at most this many times its vectors. With 2, a million vectors that
#: arrived one by one are in at most 4 segments, and were encoded 4.5 times each; with 1 in 5, 3.1 times; with 4 in 3,
#: 5.8.
MERGE_RATIO = 2
#: Fewer vectors are not worth a segment.
MIN_SEGMENT_VECTORS = 256


@dataclass(frozen=True, slots=True)
class SegmentRange:
    """A range of a log's numbers, with or without a segment, and how many vectors the log still has in it."""

    first_seq: int
    last_seq: int
    live: int
    info: SegmentInfo | None = None

    @property
    def needs_compaction(self) -> bool:
        """Whether its segment is damaged, or many of its vectors are deleted."""
        if self.info is None:
            return False
        return self.info.damaged or self.live < (1 - MAX_DELETED_SHARE) * self.info.count


@dataclass(frozen=True, slots=True)
class Compaction:
    """A range to build one segment of, in place of those it has; or none, if too few vectors are left in it."""

    first_seq: int
    last_seq: int
    live: int
    replaces: tuple[SegmentInfo, ...]


def plan(ranges: Sequence[SegmentRange], seal_from: int) -> list[Compaction]:
    """Decide what to build. `ranges` cover the whole log, in order."""
    if sum(each.live for each in ranges if each.info is None) < seal_from:
        return [_compaction([each]) for each in ranges if each.needs_compaction]
    runs: list[list[SegmentRange]] = []
    run: list[SegmentRange] = []
    for each in reversed(ranges):
        is_due = each.info is None or each.needs_compaction
        if not is_due and (not run or each.live > MERGE_RATIO * sum(member.live for member in run)):
            run = []
            continue
        if not run:
            runs.append(run)
        run.append(each)
    compactions = [_compaction(run[::-1]) for run in runs]
    return [each for each in compactions if each.replaces or each.live >= MIN_SEGMENT_VECTORS]


def _compaction(run: Sequence[SegmentRange]) -> Compaction:
    replaced = tuple(each.info for each in run if each.info is not None)
    return Compaction(run[0].first_seq, run[-1].last_seq, sum(each.live for each in run), replaced)


class Sealer:
    """Seals the logs of users.

    Args:
        seal_from: How many vectors without a segment are worth one.
    """

    def __init__(self, sessions: Sessions, embedders: Embedders, storage: SegmentStorage, *, seal_from: int) -> None:
        self._sessions = sessions
        self._embedders = embedders
        self._storage = storage
        self._seal_from = seal_from

    def seal(self, user_id: int) -> int:
        """Build the segments that the user's log needs. Returns how many.

        Does nothing while another process works on the user's log.
        """
        with index_lock(self._sessions, user_id) as acquired:
            if not acquired:
                return 0
            with long_snapshot(self._sessions) as connection:
                state = vector_log.fetch_state(connection, user_id)
                embedder = self._embedders.resolve(state.embedder)
                ranges = self._ranges(connection, user_id, embedder, state.seq)
                compactions = plan(ranges, self._seal_from)
                payloads = [self._build(connection, user_id, embedder, each) for each in compactions]
            if not compactions:
                return 0
            replaced = [info for each in compactions for info in each.replaces]
            with self._sessions() as session:
                connection = session.connection()
                before = [each.info for each in ranges if each.info is not None]
                if self._storage.list_for_user(connection, user_id, embedder.name) != before:
                    return 0  # the lock was lost with its connection, and another process was faster
                self._storage.delete(connection, replaced)
                for each, payload in zip(compactions, payloads, strict=True):
                    if payload is not None:
                        covers = (each.first_seq, each.last_seq)
                        self._storage.add(connection, user_id, embedder.name, covers, each.live, payload)
                # This comes last because processes that complete the user's prompts wait for the row's lock.
                session.execute(update(User).where(User.id == user_id).values(index_version=User.index_version + 1))
                session.commit()
            self._storage.delete_payloads(replaced)
            return len(compactions)

    def _ranges(self, connection: Connection, user_id: int, embedder: Embedder, newest: int) -> list[SegmentRange]:
        """Divide the log into the segments' ranges and those between them."""
        ranges: list[SegmentRange] = []
        covered = 0
        for info in self._storage.list_for_user(connection, user_id, embedder.name):
            ranges.append(self._range(connection, user_id, embedder, covered + 1, info.first_seq - 1))
            ranges.append(self._range(connection, user_id, embedder, info.first_seq, info.last_seq, info))
            covered = info.last_seq
        ranges.append(self._range(connection, user_id, embedder, covered + 1, newest))
        return [each for each in ranges if each.last_seq >= each.first_seq]

    def _range(
        self,
        connection: Connection,
        user_id: int,
        embedder: Embedder,
        first: int,
        last: int,
        info: SegmentInfo | None = None,
    ) -> SegmentRange:
        row = VectorLogEntry
        in_range = (row.user_id == user_id, row.seq.between(first, last), row.embedder == embedder.name)
        live = connection.execute(select(func.count()).select_from(row).where(*in_range)).scalar_one()
        return SegmentRange(first, last, live, info)

    def _build(self, connection: Connection, user_id: int, embedder: Embedder, compaction: Compaction) -> bytes | None:
        """Build the segment's payload, or return None if there are too few valid vectors."""
        if compaction.live < MIN_SEGMENT_VECTORS:
            return None
        read_range = partial(
            vector_log.stream, connection, user_id, embedder, first=compaction.first_seq, last=compaction.last_seq
        )
        one_in = max(1, compaction.live // segment.MAX_SAMPLE)
        sample = np.concatenate([batch.vectors for batch in read_range(one_in=one_in)])
        if len(sample) < segment.MIN_SAMPLE:  # because most vectors are damaged
            return None
        blocks = ((batch.seqs, batch.vectors) for batch in read_range())
        payload = segment.build(sample, blocks, compaction.live)
        logger.info(
            "segment sealed",
            user_id=user_id,
            vectors=compaction.live,
            replaced=len(compaction.replaces),
            nbytes=len(payload),
        )
        return payload
