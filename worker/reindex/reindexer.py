"""Rebuilds a user's vectors while searches continue: after a change of the embedder, or because some are missing."""

import time

import structlog
from sqlalchemy import delete, exists, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from shared.db.engine import Sessions, long_snapshot
from shared.db.models import Prompt, User, VectorLogEntry
from shared.providers import Embedders
from shared.providers.embed_each import EmbedderOutageError, embed_each
from shared.search import missing_vectors, vector_log
from shared.search.consistency_check import find_differences, is_by_another, is_embedded, lacks_vector
from shared.search.faiss.segment_storage import SegmentStorage
from shared.search.index_lock import index_lock
from shared.search.store import Maintenance, VectorStore
from shared.search.vector_backfill import log_refusal

logger = structlog.get_logger(__name__)

#: How many prompts are embedded together.
EMBED_BATCH = 256
#: How long one task works on a user. The command that sent it sends it again until nothing is left.
SLICE_SECONDS = 20.0
#: How many old rows one statement deletes.
DELETE_BATCH = 5_000


class Reindexer:
    """Gives users vectors by the current embedder.

    New vectors are written beside the old ones, in batches that stay if the work is interrupted. When none is missing,
    one short transaction switches the user's searches to the new vectors. A prompt whose text the embedder refuses does
    not stop it: it is marked as one whose vector is due (see `shared/search/missing_vectors.py`).
    """

    def __init__(
        self,
        sessions: Sessions,
        embedders: Embedders,
        storage: SegmentStorage,
        maintenance: Maintenance,
        store: VectorStore,
    ) -> None:
        self._sessions = sessions
        self._embedder = embedders.current
        self._storage = storage
        self._maintenance = maintenance
        self._store = store

    def reindex(self, user_id: int) -> bool:
        """Work on a user for at most about SLICE_SECONDS. Returns whether nothing is left to do.

        Does nothing while another process works on the user.
        """
        deadline = time.monotonic() + SLICE_SECONDS
        with index_lock(self._sessions, user_id) as acquired:
            if not acquired:
                return False
            if self._add_missing(user_id, deadline) is None:
                return False
            self._delete_invalid(user_id)
            while True:
                with self._sessions() as session:
                    seq = vector_log.fetch_state(session.connection(), user_id).seq
                refused = self._add_missing(user_id, deadline)
                if refused is None:
                    return False
                if self._switch(user_id, seq, refused):
                    break
            self._delete_old(user_id)
        self._store.forget(user_id)
        self._maintenance.seal(user_id)
        return True

    def _delete_invalid(self, user_id: int) -> None:
        """Delete vectors that are damaged or belong to no completed prompt."""
        with long_snapshot(self._sessions) as connection:
            found = find_differences(connection, self._storage, user_id, self._embedder)
        row = VectorLogEntry
        with self._sessions.begin() as session:
            for ids, embedders in ((found.orphans, row.embedder != ""), (found.damaged, row.embedder == self._name)):
                session.execute(delete(row).where(row.user_id == user_id, row.prompt_id.in_(ids), embedders))

    def _add_missing(self, user_id: int, deadline: float) -> list[int] | None:
        """Add missing vectors until the deadline. Returns None if some are left.

        Otherwise returns the prompts whose texts the embedder refuses.
        """
        last_id = 0
        refused: list[int] = []
        while True:
            with self._sessions() as session:
                lacking = (lacks_vector(user_id, self._name), Prompt.id > last_id)
                query = select(Prompt.id, Prompt.prompt_text).where(*lacking).order_by(Prompt.id).limit(EMBED_BATCH)
                batch = session.execute(query).all()
            if not batch:
                return refused
            vectors = self._embed({row.id: row.prompt_text for row in batch})
            self._store_vectors(user_id, vectors)
            refused += [row.id for row in batch if row.id not in vectors]
            last_id = batch[-1].id
            if time.monotonic() > deadline:
                return None

    def _embed(self, texts: dict[int, str]) -> dict[int, bytes]:
        """Return the vectors by prompt, without those of refused texts.

        Raises the embedder's error if it does not work.
        """
        try:
            results = embed_each(self._embedder, list(texts.values()))
        except EmbedderOutageError as error:
            raise error.cause from None
        vectors = {}
        for prompt_id, result in zip(texts, results, strict=True):
            if isinstance(result, Exception):
                log_refusal(prompt_id, result)
            else:
                vectors[prompt_id] = result.astype("<f4").tobytes()
        return vectors

    def _store_vectors(self, user_id: int, vectors: dict[int, bytes]) -> None:
        with self._sessions.begin() as session:
            # A transaction that deletes one of these prompts waits for this lock, and then deletes the new vector too.
            wanted = select(Prompt.id, Prompt.seq).where(Prompt.id.in_(vectors), is_embedded())
            rows = [
                {"user_id": user_id, "seq": seq, "embedder": self._name, "prompt_id": i, "vector": vectors[i]}
                for i, seq in session.execute(wanted.with_for_update(read=True, key_share=True))
            ]
            if rows:
                session.execute(insert(VectorLogEntry).on_conflict_do_nothing(), rows)

    def _switch(self, user_id: int, seq: int, refused: list[int]) -> bool:
        """Switch searches to the new vectors. Returns False if prompts completed after `seq` still have none.

        `refused` are prompts that will have none.
        """
        with self._sessions.begin() as session:
            missing_vectors.mark_refused(session, refused)
            session.execute(select(User.id).where(User.id == user_id).with_for_update(key_share=True))
            if self._is_behind(session, user_id, seq):
                session.rollback()
                return False
            switched = (
                update(User).where(User.id == user_id).values(embedder=self._name, index_version=User.index_version + 1)
            )
            session.execute(switched.values(vectors_missing=True) if refused else switched)
            dropped = self._storage.list_for_user(session.connection(), user_id, None)
            self._storage.delete(session.connection(), dropped)
        self._storage.delete_payloads(dropped)
        logger.info("user reindexed", user_id=user_id, embedder=self._name)
        return True

    def _is_behind(self, session: Session, user_id: int, seq: int) -> bool:
        """Whether a vector after `seq` has no counterpart by the current embedder."""
        old, new = VectorLogEntry, aliased(VectorLogEntry)
        counterpart = exists().where(new.user_id == user_id, new.prompt_id == old.prompt_id, new.embedder == self._name)
        late = select(old.seq).where(old.user_id == user_id, old.seq > seq, old.vector.is_not(None), ~counterpart)
        return session.execute(late.limit(1)).first() is not None

    def _delete_old(self, user_id: int) -> None:
        row, old = VectorLogEntry, is_by_another(user_id, self._name)
        while True:
            with self._sessions.begin() as session:
                batch = select(row.seq).where(old).limit(DELETE_BATCH).scalar_subquery()
                if not session.execute(delete(row).where(old, row.seq.in_(batch)).returning(row.seq)).all():
                    return

    @property
    def _name(self) -> str:
        return self._embedder.name
