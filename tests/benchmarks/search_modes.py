"""Latency of each mode of search for a user with many prompts: `make benchmark NAME=search_modes`.

In this process, without HTTP: the query is embedded by the default embedder, searched for, and the prompts are read.
"""

import random
import statistics
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy import insert, text

from shared.db.engine import make_engine
from shared.db.models import User
from shared.prompts import queries
from shared.prompts.filters import ALL_PROMPTS, PromptFilter
from shared.providers import embed
from shared.providers.hashing import HashingEmbedder
from shared.search.prompt_search import Mode
from shared.settings import Settings
from tests.benchmarks import published
from tests.benchmarks.embedders import read_pairs
from tests.benchmarks.search_quality import make_search
from tests.support.servers import Servers
from tests.support.vectors import add_completed

PROMPTS = 10_000
ROUNDS = 60
QUERIES = ("ERR_CONN_4711", "how do I remove red wine from a carpet", "difference between a virus and a bacterium")
FILTERS = {
    "no filter": ALL_PROMPTS,
    "a filter that half of them pass": PromptFilter(metadata={"half": "0"}),
    "a filter that one in 100 passes": PromptFilter(metadata={"hundredth": "7"}),
}


def texts(count: int) -> list[str]:
    """Return prompts of some 30 words, made of the sentences of pairs.tsv."""
    sentences = [text for pair in read_pairs() for text in (pair.first, pair.second)]
    choose = random.Random(1)
    return [f"{' '.join(choose.choices(sentences, k=4))} ERR_CONN_{i}" for i in range(count)]


def median_ms(function: Callable[[str], object]) -> float:
    times = []
    for i in range(ROUNDS):
        started = time.perf_counter()
        function(QUERIES[i % len(QUERIES)])
        times.append(1_000 * (time.perf_counter() - started))
    return statistics.median(times)


def main() -> None:
    arguments = published.parser(__doc__).parse_args()
    figures = {}
    servers = Servers("search-modes")
    servers.start()
    try:
        for vector_store in ("faiss", "pgvector"):
            with servers.database(vector_store) as name:
                figures[vector_store] = measure(servers.settings(name, vector_store=vector_store))
            print(vector_store)
            for label, by_mode in figures[vector_store].items():
                print(f"  {label:32}", *(f"{mode} {ms:7.2f} ms" for mode, ms in by_mode.items()))
    finally:
        servers.stop()
    if arguments.write:
        published.write("search_modes", figures)


def measure(settings: Settings) -> dict[str, dict[str, float]]:
    """The median of each mode, in ms, by filter."""
    search, sessions, close = make_search(settings, HashingEmbedder())
    engine = make_engine(settings, application_name="benchmark", autocommit=True)
    prompts = texts(PROMPTS)
    with sessions.begin() as session:
        user_id = session.scalar(insert(User).values(username="q", password_hash="x").returning(User.id))
    add_completed(sessions, user_id, prompts, answers=prompts[::-1])
    with engine.connect() as connection:
        pairs = "jsonb_build_object('half', (id % 2)::text, 'hundredth', (id % 100)::text)"
        connection.execute(text(f"UPDATE prompts SET metadata = {pairs}"))  # noqa: S608  # nosec B608
        connection.execute(text("VACUUM ANALYZE"))

    def find(mode: Mode, only: PromptFilter, query: str) -> list[int]:
        found, _ = search.search(user_id, mode, query, lambda each: embed(each, [query])[0], 5, only)
        with engine.connect() as connection:
            rows = queries.ranked(connection, user_id, [each.prompt_id for each in found], max_bytes=2**21)
        return [row.id for row in rows.prompts]

    find(Mode.TEXT, ALL_PROMPTS, "tides")  # stores the words of all prompts
    measured = {
        label: {mode.value: round(median_ms(partial(find, mode, only)), 2) for mode in Mode}
        for label, only in FILTERS.items()
    }
    engine.dispose()
    close()
    return measured


if __name__ == "__main__":
    main()
