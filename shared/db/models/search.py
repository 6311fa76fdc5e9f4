"""What the search indexes are built from, and what is derived from it."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, func, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.models.base import Base


class VectorLogEntry(Base):
    """A change of a user's search index: a vector (little-endian float32), or a tombstone, whose vector is NULL.

    During a reindex with another embedder, a prompt has one vector of each: with the same number, unless one was added
    later.
    """

    __tablename__ = "vector_log"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    #: The embedder's name; empty for a tombstone.
    embedder: Mapped[str] = mapped_column(primary_key=True, server_default="")
    prompt_id: Mapped[int]
    vector: Mapped[bytes | None]

    __table_args__ = (
        CheckConstraint("(vector IS NULL) = (embedder = '')", "vector_names_its_embedder"),
        Index("vector_log_of_prompt", "user_id", "prompt_id"),
    )


class SegmentEntry(Base):
    """A sealed segment: an index of the vectors in a user's log from `first_seq` to `last_seq`.

    It is derived from the log and immutable: a worker replaces it with a new one.
    """

    __tablename__ = "segments"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    embedder: Mapped[str]
    first_seq: Mapped[int]
    last_seq: Mapped[int]
    count: Mapped[int]
    #: SHA-256 of the payload.
    checksum: Mapped[bytes]
    #: The version of FAISS that wrote it, for debugging a damaged segment.
    faiss_version: Mapped[str]
    #: The payload's URL, if it is not in `segment_parts`.
    location: Mapped[str | None]
    #: It could not be read; a worker replaces it.
    damaged: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("segments_of_user", "user_id", "id"),)


class SegmentPart(Base):
    """A chunk of a segment's payload, in order of `number`."""

    __tablename__ = "segment_parts"

    segment_id: Mapped[int] = mapped_column(ForeignKey("segments.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes]


class PromptWords(Base):
    """The words of a completed prompt and its answer. Searches by words fill it in, so some prompts have none yet."""

    __tablename__ = "prompt_words"

    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id", ondelete="CASCADE"), primary_key=True)
    #: Each lexeme is a user's id, a colon and a word, so that the index has the words of each user apart.
    words: Mapped[str] = mapped_column(TSVECTOR)

    # A short pending list: adding through it takes half the time, but each search has to read it.
    __table_args__ = (
        Index("prompt_words_by_word", "words", postgresql_using="gin", postgresql_with={"gin_pending_list_limit": 128}),
    )


class WordIndexState(Base):
    """How far the words of a user's prompts are complete. No row before the user's first search by words."""

    __tablename__ = "word_index"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    #: The number in the user's feed.
    seq: Mapped[int] = mapped_column(server_default=text("0"))
