"""Quality of the modes of search, with each embedder: `make benchmark NAME=search_quality`.

One user has the prompts of `identifiers.py` and the texts of pairs.tsv. A search for an identifier must find its
prompt, and one for a paraphrase its partner.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product

from sqlalchemy import insert

from shared.db.engine import Sessions, make_engine, make_sessions
from shared.db.models import User
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.providers import Embedder, Embedders, embed
from shared.providers.hashing import HashingEmbedder
from shared.providers.minilm import MiniLMEmbedder
from shared.search.factory import make_store
from shared.search.prompt_search import Mode, PromptSearch
from shared.search.store import run_inline
from shared.search.vector_backfill import VectorBackfill
from shared.search.words.word_index import WordIndex
from shared.search.words.word_writer import WordWriter
from shared.settings import Settings
from tests.benchmarks import published
from tests.benchmarks.embedders import NAMES, read_pairs
from tests.benchmarks.held_out import held_out
from tests.benchmarks.identifiers import Identified, identified
from tests.support.servers import Servers
from tests.support.vectors import add_completed

K = 5
IDENTIFIERS = "all identifiers"
PARAPHRASES = "paraphrases"
#: The share of the searches of a kind whose prompt is among the first K.
Recall = dict[str, float]


def corpus() -> list[Identified]:
    """Return all prompts; those without a query are only there to be confused with the others."""
    pairs = read_pairs()
    paraphrases = [
        Identified(PARAPHRASES, "", pair.second, "", pair.first) for pair in pairs if pair.label == "paraphrase"
    ]
    return [*identified(), *paraphrases, *_others()]


def held_out_corpus() -> list[Identified]:
    """Return prompts that the thresholds of hybrid search were not chosen with, and the same others."""
    return [*held_out(PARAPHRASES), *_others()]


def _others() -> list[Identified]:
    pairs = [pair for pair in read_pairs() if pair.label != "paraphrase"]
    return [Identified("", "", text, "", "") for pair in pairs for text in (pair.first, pair.second)]


def recall(
    search: PromptSearch, mode: Mode, user_id: int, embedder: Embedder, prompts: Sequence[Identified], ids: list[int]
) -> Recall:
    """Return the recall at K of each kind of query, of each place of the identifier, and of all identifiers."""
    hits: dict[str, list[bool]] = defaultdict(list)
    for prompt, prompt_id in zip(prompts, ids, strict=True):
        if not prompt.query:
            continue
        vector = embed(embedder, [prompt.query])[0]
        found, _ = search.search(user_id, mode, prompt.query, lambda _, vector=vector: vector, K)
        for group in (prompt.kind, f"  {prompt.place}", IDENTIFIERS) if prompt.place else (prompt.kind,):
            hits[group].append(prompt_id in {each.prompt_id for each in found})
    return {kind: sum(each) / len(each) for kind, each in hits.items()}


def make_search(settings: Settings, embedder: Embedder) -> tuple[PromptSearch, Sessions, Callable[[], None]]:
    """Return a search with this embedder, its sessions, and what closes the connections."""
    engines = [make_engine(settings, application_name="benchmark", autocommit=each) for each in (False, True)]
    sessions, embedders = make_sessions(engines[0]), Embedders(embedder)
    store = make_store(settings, sessions, engines[1], embedders, Queue(make_celery(settings), make_redis(settings)))
    words = WordIndex(WordWriter(sessions, run_inline), engines[1])
    search = PromptSearch(store, words, VectorBackfill(sessions, embedders, store), engines[1])
    return search, sessions, lambda: [engine.dispose() for engine in engines]


@contextmanager
def measured(
    settings: Settings, embedder: Embedder, prompts: Sequence[Identified]
) -> Iterator[Callable[[Mode], Recall]]:
    """Store the prompts, and give a function that measures a mode."""
    search, sessions, close = make_search(settings, embedder)
    with sessions.begin() as session:
        user_id = session.scalar(insert(User).values(username="q", password_hash="x").returning(User.id))
    texts, answers = [each.prompt for each in prompts], [each.answer for each in prompts]
    ids = add_completed(sessions, user_id, texts, answers=answers, embedder=embedder)
    yield lambda mode: recall(search, mode, user_id, embedder, prompts, ids)
    close()


def main() -> None:
    arguments = published.parser(__doc__).parse_args()
    figures: dict[str, dict[str, dict[str, Recall]]] = {}
    servers = Servers("search-quality")
    servers.start()
    try:
        corpora = {"chosen with": corpus(), "held out": held_out_corpus()}
        for (title, prompts), embedder in product(corpora.items(), (HashingEmbedder(), MiniLMEmbedder())):
            print(f"\n{title}: recall@{K} among {len(prompts)} prompts of one user")
            with servers.database() as name, measured(servers.settings(name), embedder, prompts) as measure:
                by_mode = {mode: measure(mode) for mode in Mode}
            figures.setdefault(title, {})[NAMES[type(embedder)]] = {
                mode.value: {kind.strip(): round(share, 3) for kind, share in each.items()}
                for mode, each in by_mode.items()
            }
            print(f"{embedder.name:24}", *(f"{mode:>8}" for mode in Mode))
            for kind in by_mode[Mode.VECTOR]:
                print(f"{kind:24}", *(f"{by_mode[mode][kind]:8.3f}" for mode in Mode))
            sys.stdout.flush()
    finally:
        servers.stop()
    if arguments.write:
        published.write("search_quality", figures)


if __name__ == "__main__":
    main()
