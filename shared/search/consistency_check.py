"""Compares a user's prompts with what is derived from them: vectors and segments."""

from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import ColumnElement, Connection, and_, exists, or_, select, text
from sqlalchemy.orm import aliased

from shared.db.models import Prompt, Status, User, VectorLogEntry
from shared.providers import Embedder
from shared.search import vector_log
from shared.search.faiss.segment import DamagedSegmentError
from shared.search.faiss.segment_storage import SegmentStorage, SegmentUnavailableError, verify_and_decode


@dataclass(frozen=True, slots=True)
class Differences:
    """What is wrong with one user's vectors: ids of prompts, and ids of segments."""

    embedder: str | None  #: the one whose vectors searches compare, if it is not the expected one
    missing: list[int] = field(default_factory=list)  #: prompts that are completed but have no vector, without a reason
    orphans: list[int] = field(default_factory=list)  #: prompts that have a vector but should have none
    damaged: list[int] = field(default_factory=list)  #: prompts whose vector is not a valid one of the embedder
    old: list[int] = field(default_factory=list)  #: prompts with a vector by another embedder
    segments: list[int] = field(default_factory=list)  #: segments that are unreadable or lack a vector
    #: Prompts that were completed while the embedder failed. Workers embed them, so this is not damage.
    due: list[int] = field(default_factory=list)
    #: Prompts whose vectors were given up, because the embedder refuses their texts.
    refused: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything is damaged or out of date."""
        return any((self.embedder, self.missing, self.orphans, self.damaged, self.old, self.segments))


def lacks_vector(user_id: int, embedder: str) -> ColumnElement[bool]:
    """A condition on prompts: completed ones of this user without a vector by this embedder.

    Those whose vectors are due, or given up, are left out while searches compare this embedder's vectors.
    """
    row = aliased(VectorLogEntry)
    has = exists().where(row.user_id == user_id, row.prompt_id == Prompt.id, row.embedder == embedder)
    is_compared = exists().where(User.id == user_id, or_(User.embedder.is_(None), User.embedder == embedder))
    is_known = and_(Prompt.vector_due_at.is_not(None), is_compared)
    return and_(Prompt.user_id == user_id, is_embedded(), ~has, ~is_known)


def is_embedded() -> ColumnElement[bool]:
    """A condition on prompts: those that should have a vector."""
    return and_(Prompt.status == Status.COMPLETED, Prompt.emptied_at.is_(None))


def is_by_another(user_id: int, embedder: str) -> ColumnElement[bool]:
    """A condition on log rows: those of this user with a vector by another embedder."""
    return and_(VectorLogEntry.user_id == user_id, VectorLogEntry.embedder.not_in(("", embedder)))


def find_differences(connection: Connection, storage: SegmentStorage, user_id: int, embedder: Embedder) -> Differences:
    """Check all of a user's vectors and segments. The connection must be in a transaction of one snapshot."""
    compared = vector_log.fetch_state(connection, user_id).embedder
    missing = connection.scalars(select(Prompt.id).where(lacks_vector(user_id, embedder.name)).order_by(Prompt.id))
    row = VectorLogEntry
    completed = exists().where(Prompt.id == row.prompt_id, is_embedded())
    orphans = select(row.prompt_id).where(row.user_id == user_id, row.vector.is_not(None), ~completed)
    seqs, damaged = _read_log(connection, user_id, embedder)
    due, given_up = Prompt.vector_due_at.is_not(None), Prompt.vector_due_at == text("'infinity'")
    of_user = select(Prompt.id).where(Prompt.user_id == user_id).order_by(Prompt.id)
    return Differences(
        embedder=None if compared in (None, embedder.name) else compared,
        missing=list(missing),
        orphans=sorted(set(connection.scalars(orphans))),
        damaged=damaged,
        old=list(connection.scalars(select(row.prompt_id).where(is_by_another(user_id, embedder.name)).distinct())),
        segments=_bad_segments(connection, storage, user_id, embedder, seqs),
        due=list(connection.scalars(of_user.where(due, ~given_up))),
        refused=list(connection.scalars(of_user.where(given_up))),
    )


def _read_log(connection: Connection, user_id: int, embedder: Embedder) -> tuple[vector_log.Seqs, list[int]]:
    """Return the numbers of the user's valid vectors, and the prompts of the damaged ones."""
    valid, damaged = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for changes in vector_log.stream(connection, user_id, embedder):
        valid.append(changes.seqs)
        damaged.append(changes.damaged)
    return np.concatenate(valid), np.concatenate(damaged).tolist()


def _bad_segments(
    connection: Connection, storage: SegmentStorage, user_id: int, embedder: Embedder, seqs: vector_log.Seqs
) -> list[int]:
    """Return the ids of segments that are damaged, unreadable, or lack one of the log's vectors in their range."""
    bad = []
    for info in storage.list_for_user(connection, user_id, embedder.name):
        expected = seqs[(seqs >= info.first_seq) & (seqs <= info.last_seq)]
        try:
            stored = verify_and_decode(info, storage.read_payload(connection, info)).seqs
        except (DamagedSegmentError, SegmentUnavailableError):
            stored = expected[:0]
        if info.damaged or len(np.setdiff1d(expected, stored)):
            bad.append(info.id)
    return bad
