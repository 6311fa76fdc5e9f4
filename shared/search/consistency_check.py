"""Comparing what is derived from a user's prompts with the prompts themselves."""

from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import ColumnElement, Connection, and_, exists, select
from sqlalchemy.orm import aliased

from shared.db.models import Prompt, Status, VectorLogEntry
from shared.providers import Embedder
from shared.search import vector_log
from shared.search.faiss.segment import DamagedSegmentError
from shared.search.faiss.segment_storage import Segments, SegmentUnavailableError, read


@dataclass(frozen=True, slots=True)
class Differences:
    """What is not as it should be of one user's vectors: ids of prompts, and ids of segments."""

    embedder: str | None  #: the one whose vectors are compared, if it is not the expected one
    missing: list[int] = field(default_factory=list)  #: completed, but without a vector
    orphans: list[int] = field(default_factory=list)  #: with a vector, but not completed (any more)
    damaged: list[int] = field(default_factory=list)  #: with a vector that is none of the embedder's
    old: list[int] = field(default_factory=list)  #: with a vector by another embedder
    segments: list[int] = field(default_factory=list)  #: unreadable, or without a vector that they should have

    def __bool__(self) -> bool:
        return any((self.embedder, self.missing, self.orphans, self.damaged, self.old, self.segments))


def lacks_vector(user_id: int, embedder: str) -> ColumnElement[bool]:
    """Holds for the user's completed prompts that have no vector by this embedder."""
    row = aliased(VectorLogEntry)
    has = exists().where(row.user_id == user_id, row.prompt_id == Prompt.id, row.embedder == embedder)
    return and_(Prompt.user_id == user_id, Prompt.status == Status.COMPLETED, ~has)


def is_by_another(user_id: int, embedder: str) -> ColumnElement[bool]:
    """Holds for the rows of the user's log with a vector by another embedder."""
    return and_(VectorLogEntry.user_id == user_id, VectorLogEntry.embedder.not_in(("", embedder)))


def inspect(connection: Connection, segments: Segments, user_id: int, embedder: Embedder) -> Differences:
    """Looks at all of a user's vectors. The connection must be in a transaction of one snapshot."""
    compared = vector_log.state(connection, user_id).embedder
    missing = connection.scalars(select(Prompt.id).where(lacks_vector(user_id, embedder.name)).order_by(Prompt.id))
    row = VectorLogEntry
    completed = exists().where(Prompt.id == row.prompt_id, Prompt.status == Status.COMPLETED)
    orphans = select(row.prompt_id).where(row.user_id == user_id, row.vector.is_not(None), ~completed)
    seqs, damaged = _read(connection, user_id, embedder)
    return Differences(
        embedder=None if compared in (None, embedder.name) else compared,
        missing=list(missing),
        orphans=sorted(set(connection.scalars(orphans))),
        damaged=damaged,
        old=list(connection.scalars(select(row.prompt_id).where(is_by_another(user_id, embedder.name)).distinct())),
        segments=_bad_segments(connection, segments, user_id, embedder, seqs),
    )


def _read(connection: Connection, user_id: int, embedder: Embedder) -> tuple[vector_log.Seqs, list[int]]:
    """The numbers of the user's sound vectors, and the prompts of the damaged ones."""
    sound, damaged = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for changes in vector_log.stream(connection, user_id, embedder):
        sound.append(changes.seqs)
        damaged.append(changes.damaged)
    return np.concatenate(sound), np.concatenate(damaged).tolist()


def _bad_segments(
    connection: Connection, segments: Segments, user_id: int, embedder: Embedder, seqs: vector_log.Seqs
) -> list[int]:
    bad = []
    for sealed in segments.of_user(connection, user_id, embedder.name):
        covered = seqs[(seqs >= sealed.first_seq) & (seqs <= sealed.last_seq)]
        try:
            held = read(sealed, segments.payload(connection, sealed)).seqs
        except (DamagedSegmentError, SegmentUnavailableError):
            held = covered[:0]
        if sealed.damaged or len(np.setdiff1d(covered, held)):
            bad.append(sealed.id)
    return bad
