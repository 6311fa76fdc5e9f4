"""The data of all contenders: the vectors of the measured users, among those of many others."""

import contextlib
import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import psycopg2

from shared.providers import Vectors
from shared.providers.hashing import HashingEmbedder
from shared.settings import Settings
from tests.benchmarks.search import data

#: The number of vectors of each other user.
VECTORS_OF_OTHERS = 1_000
#: A prompt's id is its position among the user's prompts, plus this many times the user's id.
ID_STEP = 10_000_000

_EMBEDDER = HashingEmbedder.name.encode()
_COPY_HEAD, _COPY_END = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0), struct.pack(">h", -1)


class Owner(NamedTuple):
    """A measured user."""

    user_id: int
    kind: str
    data: data.Data

    @property
    def size(self) -> int:
        return len(self.data.vectors)

    def positions(self, prompt_ids: Iterable[int]) -> list[int]:
        """Return the positions of prompts among the user's vectors. Raises ValueError for another user's prompt."""
        found = [prompt_id - self.user_id * ID_STEP for prompt_id in prompt_ids]
        if not all(0 <= position < self.size for position in found):
            raise ValueError(f"user {self.user_id} got vectors of others: {found}")
        return found


@dataclass(frozen=True)
class Corpus:
    """The vectors of all users."""

    owners: list[Owner]
    others: int  #: the number of all other users' vectors
    seed: int = 0

    @property
    def total(self) -> int:
        return self.others + sum(owner.size for owner in self.owners)

    def blocks(self, owners: list[Owner], others: int) -> Iterator[tuple[int, int, Vectors]]:
        """Yield (user id, position of the first, vectors) of these users, and of `others` vectors of other users."""
        for owner in owners:
            for start in range(0, owner.size, data.BLOCK):
                yield owner.user_id, start, owner.data.vectors[start : start + data.BLOCK]
        user_id = max(owner.user_id for owner in self.owners)
        for block in data.blocks("random", others, self.seed + 1):
            for start in range(0, len(block), VECTORS_OF_OTHERS):
                user_id += 1
                yield user_id, 0, block[start : start + VECTORS_OF_OTHERS]

    def all_blocks(self) -> Iterator[tuple[int, int, Vectors]]:
        return self.blocks(self.owners, self.others)

    def graph_part(self, total: int) -> tuple[list[Owner], int]:
        """Select a part for slow builds: users with up to half of `total`, and the number of others' vectors."""
        owners: list[Owner] = []
        for owner in sorted((each for each in self.owners if each.kind == "random"), key=lambda each: each.size):
            if sum(each.size for each in [*owners, owner]) <= total // 2:
                owners.append(owner)
        return owners, min(self.others, total - sum(owner.size for owner in owners))


def make(wanted: Iterable[tuple[str, int]], total: int, seed: int = 0) -> Corpus:
    """Create users with these kinds and numbers of vectors, and others' vectors up to `total`."""
    owners = [Owner(i, kind, data.make(kind, size, seed + i)) for i, (kind, size) in enumerate(wanted, 1)]
    return Corpus(owners, max(0, total - sum(owner.size for owner in owners)), seed)


def prompt_ids(user_id: int, first: int, count: int) -> list[int]:
    return [user_id * ID_STEP + position for position in range(first, first + count)]


@contextlib.contextmanager
def connected(settings: Settings) -> Iterator[Any]:
    """Open a cursor in autocommit."""
    with contextlib.closing(psycopg2.connect(settings.database_url.get_secret_value())) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


def store(settings: Settings, corpus: Corpus, *, narrow: bool = True) -> None:
    """Fill `vector_log` as completed prompts do, and a narrow table for pgvector, both in the same order."""
    with connected(settings) as cursor:
        cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
        cursor.execute("CREATE TABLE narrow (user_id bigint, prompt_id bigint, embedding vector(384))")
        for user_id, first, vectors in corpus.all_blocks():
            if first == 0:
                name = f"user-{user_id}"
                cursor.execute(
                    "INSERT INTO users (id, username, password_hash, embedder) OVERRIDING SYSTEM VALUE "
                    "VALUES (%s, %s, '-', %s)",
                    (user_id, name, HashingEmbedder.name),
                )
            copy(cursor, "vector_log (user_id, seq, prompt_id, embedder, vector)", log_rows(user_id, first, vectors))
            if narrow:
                copy(cursor, "narrow (user_id, prompt_id, embedding)", _narrow_rows(user_id, first, vectors))
        cursor.execute("UPDATE users SET seq = (SELECT max(seq) FROM vector_log WHERE user_id = users.id)")
        cursor.execute("CREATE INDEX narrow_of_user ON narrow (user_id)")
        cursor.execute("VACUUM ANALYZE vector_log, narrow, users")


def make_graph(settings: Settings, corpus: Corpus, total: int) -> None:
    """Create a table with an HNSW index for pgvector, of a part of the corpus."""
    owners, others = corpus.graph_part(total)
    last = max(owner.user_id for owner in corpus.owners) + -(-others // VECTORS_OF_OTHERS)
    with connected(settings) as cursor:
        cursor.execute("SET maintenance_work_mem = '2GB'")
        cursor.execute(
            "CREATE TABLE graph AS SELECT * FROM narrow WHERE user_id = ANY(%s) OR user_id BETWEEN %s AND %s",
            ([owner.user_id for owner in owners], max(owner.user_id for owner in corpus.owners) + 1, last),
        )
        cursor.execute("CREATE INDEX ON graph USING hnsw (embedding vector_l2_ops) WITH (m = 16, ef_construction = 64)")
        cursor.execute("VACUUM ANALYZE graph")


def log_rows(user_id: int, first: int, vectors: Vectors) -> Iterator[bytes]:
    """Yield rows of `vector_log` in the format of COPY BINARY. The numbers of a feed start at 1."""
    head, tail = struct.Struct(">hiqiqiq"), struct.pack(f">i{len(_EMBEDDER)}si", len(_EMBEDDER), _EMBEDDER, 1536)
    for position, vector in enumerate(vectors, first):
        row = head.pack(5, 8, user_id, 8, position + 1, 8, user_id * ID_STEP + position)
        yield row + tail + vector.tobytes()


def _narrow_rows(user_id: int, first: int, vectors: Vectors) -> Iterator[bytes]:
    """Yield rows of the narrow table. A `vector` is its dimension, two unused bytes, and big-endian float32."""
    head = struct.Struct(">hiqiqihh")
    length = 4 + 4 * data.DIMENSION
    for position, vector in enumerate(vectors.astype(">f4"), first):
        row = head.pack(3, 8, user_id, 8, user_id * ID_STEP + position, length, data.DIMENSION, 0)
        yield row + vector.tobytes()


def copy(cursor: Any, into: str, rows: Iterable[bytes]) -> None:
    file = io.BytesIO(b"".join([_COPY_HEAD, *rows, _COPY_END]))
    cursor.copy_expert(f"COPY {into} FROM STDIN (FORMAT binary)", file)


def as_text(vector: Vectors) -> str:
    """Format a vector for pgvector."""
    return "[" + ",".join(map(str, np.asarray(vector).tolist())) + "]"
