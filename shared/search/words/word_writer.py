"""Adds the words of completed prompts to `prompt_words`, up to the newest entry of their user's feed."""

from collections.abc import Sequence

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from shared.db.engine import Sessions
from shared.db.models import Change
from shared.search.store import Offload
from shared.search.words.lexemes import lexemes

#: How many prompts, and how many bytes of text, a transaction adds at most; but at least one prompt.
BATCH_PROMPTS = 500
BATCH_BYTES = 4 * 1024 * 1024

# The state is locked while prompts are added, so that two processes do not add the same ones.
_CREATE_STATE = text("INSERT INTO word_index (user_id) SELECT id FROM users WHERE id = :user_id ON CONFLICT DO NOTHING")
_LOCK_STATE = text("""
    SELECT word_index.seq AS indexed, users.seq AS newest
    FROM word_index JOIN users ON users.id = word_index.user_id WHERE user_id = :user_id FOR UPDATE OF word_index
""")
_ADVANCE = text("UPDATE word_index SET seq = :seq WHERE user_id = :user_id")
_FEED = text("""
    SELECT seq, prompt_id, change FROM feed WHERE user_id = :user_id AND seq > :indexed AND seq <= :newest
    ORDER BY seq LIMIT :limit
""")
_WITHOUT_WORDS = text("""
    SELECT id FROM prompts
    WHERE user_id = :user_id AND status = 'completed' AND emptied_at IS NULL AND id > :after
        AND NOT EXISTS (SELECT FROM prompt_words WHERE prompt_id = prompts.id)
    ORDER BY id LIMIT :limit
""")
# A transaction that empties or deletes one of these prompts waits for this lock, and then finds its words and removes
# them. The foreign key would take the same one.
_LOCK_PROMPTS = text("""
    SELECT id, octet_length(prompt_text) + coalesce(octet_length(response_text), 0) AS size FROM prompts
    WHERE id = ANY(:ids) AND user_id = :user_id AND status = 'completed' AND emptied_at IS NULL
    ORDER BY id FOR KEY SHARE
""")
_TEXTS = text("""
    SELECT id, prompt_text || E'\\n' || coalesce(response_text, '') AS text FROM prompts WHERE id = ANY(:ids)
""")
_ADD = text("""
    INSERT INTO prompt_words (prompt_id, words)
    SELECT id, array_to_tsvector(string_to_array(lexemes, ' '))
    FROM unnest(CAST(:ids AS bigint[]), CAST(:lexemes AS text[])) AS added(id, lexemes)
    ON CONFLICT DO NOTHING
""")


class WordWriter:
    """Follows users' feeds. Where the feed has gaps, because old entries are deleted, it looks through all prompts.

    Args:
        offload: Splits texts into words.
    """

    def __init__(self, sessions: Sessions, offload: Offload) -> None:
        self._sessions = sessions
        self._offload = offload

    def catch_up(self, user_id: int) -> None:
        """Add what was completed since, in short transactions. An interruption loses only the current one."""
        while (gap := self._follow_feed(user_id)) is not None:
            after: int | None = 0
            while after is not None:
                after = self._add_missing(user_id, after, reached=gap)

    def _follow_feed(self, user_id: int) -> int | None:
        """Add all that the feed has. Returns the user's newest number if the feed has gaps before it."""
        while True:
            with self._sessions.begin() as session:
                state = _lock_state(session, user_id)
                if state is None or state.indexed >= state.newest:
                    return None
                wanted = {"user_id": user_id, "indexed": state.indexed, "newest": state.newest, "limit": BATCH_PROMPTS}
                entries = session.execute(_FEED, wanted).all()
                if not entries or entries[-1].seq - state.indexed > len(entries):
                    return int(state.newest)
                self._add_entries(session, user_id, entries)

    def _add_entries(self, session: Session, user_id: int, entries: Sequence[Row[tuple[int, int, str]]]) -> None:
        seqs = {entry.prompt_id: entry.seq for entry in entries if entry.change == Change.COMPLETED}
        left = self._add(session, user_id, list(seqs))
        seq = seqs[left[0]] - 1 if left else entries[-1].seq
        session.execute(_ADVANCE, {"user_id": user_id, "seq": seq})

    def _add_missing(self, user_id: int, after: int, *, reached: int) -> int | None:
        """Add some of the prompts that have no words, with ids above `after`. Returns the last id; None at the end.

        Then the words are complete up to `reached`, the user's newest number when that began.
        """
        with self._sessions.begin() as session:
            state = _lock_state(session, user_id)
            if state is None or state.indexed >= reached:
                return None
            wanted = {"user_id": user_id, "after": after, "limit": BATCH_PROMPTS}
            ids = list(session.scalars(_WITHOUT_WORDS, wanted))
            if not ids:
                session.execute(_ADVANCE, {"user_id": user_id, "seq": reached})
                return None
            left = self._add(session, user_id, ids)
            return left[0] - 1 if left else ids[-1]

    def _add(self, session: Session, user_id: int, ids: list[int]) -> list[int]:
        """Add the words of these prompts, if they still have texts. Returns those for which the batch is too large."""
        locked = session.execute(_LOCK_PROMPTS, {"user_id": user_id, "ids": ids})
        sizes = {prompt_id: size for prompt_id, size in locked}  # noqa: C416 (rows are no pairs for mypy)
        size, count = 0, 0
        for prompt_id in ids:
            size += sizes.get(prompt_id, 0)
            if count and size > BATCH_BYTES:
                break
            count += 1
        rows = session.execute(_TEXTS, {"ids": [each for each in ids[:count] if each in sizes]}).all()
        found = self._offload(_lexemes, user_id, [row.text for row in rows])
        session.execute(_ADD, {"ids": [row.id for row in rows], "lexemes": found})
        return ids[count:]


def _lock_state(session: Session, user_id: int) -> Row[tuple[int, int]] | None:
    """Lock the user's state. Returns it, or None if there is no such user."""
    state = session.execute(_LOCK_STATE, {"user_id": user_id}).first()
    if state is None:
        session.execute(_CREATE_STATE, {"user_id": user_id})
        state = session.execute(_LOCK_STATE, {"user_id": user_id}).first()
    return state


def _lexemes(user_id: int, texts: Sequence[str]) -> list[str]:
    return [lexemes(user_id, each) for each in texts]
