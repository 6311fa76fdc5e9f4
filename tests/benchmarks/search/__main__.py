"""`make bench-search`: compares our search with other libraries and databases, and with alternatives to our index.

A default run takes about a quarter of an hour; `--quick` takes less than two minutes.
"""

from tests.benchmarks.search.process_setup import silence_logs, use_one_thread

use_one_thread()  # before NumPy is loaded

import argparse  # noqa: E402
import contextlib  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from tempfile import TemporaryDirectory  # noqa: E402
from typing import Any  # noqa: E402

import faiss  # noqa: E402

from shared.settings import Settings  # noqa: E402
from tests.benchmarks.cpu import of_families, server_pid  # noqa: E402
from tests.benchmarks.reporting import machine  # noqa: E402
from tests.benchmarks.search import (  # noqa: E402
    cold_start,
    corpus,
    freshness,
    index_types,
    memory,
    over_http,
    race,
    report,
)
from tests.benchmarks.search.corpus import Corpus, connected  # noqa: E402
from tests.benchmarks.search.figures import median  # noqa: E402
from tests.benchmarks.search.in_postgres import Stores  # noqa: E402
from tests.benchmarks.search.scale import SECTIONS, Scale, scale_of  # noqa: E402
from tests.support.servers import Servers  # noqa: E402


def main() -> None:
    silence_logs()
    faiss.omp_set_num_threads(1)
    arguments = parse()
    scale = scale_of(arguments)
    servers = Servers("bench-search")
    measured: report.Results = {"conditions": {}}
    servers.start()
    try:
        for section in arguments.sections:
            started = time.perf_counter()
            print(f"{section} …", flush=True)
            results = SECTION[section](servers, scale)
            results["conditions"] = {**measured["conditions"], section: conditions(section, scale)}
            measured |= results
            print(f"{section} took {time.perf_counter() - started:.0f} s", flush=True)
            if arguments.write:
                report.write(results)
    finally:
        servers.stop()
    print("\n" + report.tables(measured))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.search", description=__doc__)
    parser.add_argument("--own", type=int, nargs="+", help="numbers of vectors of the measured users")
    parser.add_argument("--total", type=int, help="number of all vectors (default 1,000,000)")
    parser.add_argument("--others", type=int, help="number of other users' vectors, instead of --total")
    parser.add_argument("--graph-total", type=int, help="number of vectors for pgvector's HNSW and Chroma")
    parser.add_argument("--graph-own", type=int, help="largest user for whom usearch and hnswlib are built")
    parser.add_argument("--rounds", type=int, help="number of rounds")
    parser.add_argument("--idle-wait", type=float, default=0.0, help="total seconds to wait for the machine to be idle")
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that everything works")
    parser.add_argument("--full", action="store_true", help="10,000 deletions, and larger graphs")
    parser.add_argument("--million", action="store_true", help="also a user with 1,000,000 vectors (ours and flat)")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to measure")
    parser.add_argument(
        "--index-types", dest="sections", action="store_const", const=["index_types"], help="measure only index types"
    )
    parser.add_argument("--write", action="store_true", help="replace these sections in the committed results")
    return parser.parse_args()


def conditions(section: str, scale: Scale) -> dict[str, Any]:
    about = {"total": scale.total, "graph_total": scale.graph_total} if section == "race" else {}
    busy = round(median(scale.turns.busy), 1) if scale.turns.busy else None
    scale.turns.busy.clear()
    return machine(report.LIBRARIES) | about | {"rounds": scale.turns.rounds, "busy_percent": busy}


def measure_race(servers: Servers, scale: Scale) -> report.Results:
    """Measure the comparison, and our cold start, memory and freshness with the same users."""
    cpu = of_families([server_pid(servers)], and_this=True)
    with prepared(servers, scale.users, scale.total) as (settings, all_users, stores):
        corpus.make_graph(settings, all_users, scale.graph_total)
        results: report.Results = {"race": {}, "cold": {}, "memory": {}, "postgres": _about(settings)}
        with TemporaryDirectory() as folder:
            limits = race.Limits(scale.graph_total, scale.graph_own)
            with race.contenders(settings, all_users, stores, limits, Path(folder)) as contenders:
                race.settle(settings)
                for owner in all_users.owners:
                    print(f"  {owner.kind}, {owner.size:,}", flush=True)
                    results["race"][f"{owner.kind}/{owner.size}"] = race.race(
                        owner, contenders, scale.turns, cpu, settings
                    )
        for owner in all_users.owners:
            if owner.kind == "random":
                user = f"{owner.kind}/{owner.size}"
                results["cold"][user] = cold_start.measure(stores, settings, owner)
                graphs = owner.size <= scale.graph_own
                results["memory"][user] = memory.per_vector(settings, owner, graphs=graphs)
        # The following measurements change the users' vectors.
        changing = [owner for owner in all_users.owners if owner.kind == "random" and owner.size >= 1_000]
        print("  writes, deletions, memory limit", flush=True)
        results["own_writes"] = freshness.writes(settings, changing, scale.writes)
        results["deletions"] = freshness.deletions(settings, stores, changing[-2:], scale.deletions)
        results["bounded"] = memory.with_limit(settings, all_users, scale.small_users, scale.small_searches)
    return _with_million(servers, scale, results) if scale.million else results


def _with_million(servers: Servers, scale: Scale, results: report.Results) -> report.Results:
    """Add a user with a million vectors in a database of its own: our search, and flat."""
    cpu = of_families([server_pid(servers)], and_this=True)
    with prepared(servers, [("random", 1_000_000)], 0, narrow=False) as (settings, corpus_of_one, stores):
        (owner,) = corpus_of_one.owners
        contenders = [
            race.Ours(stores),
            race.OwnIndex("FAISS flat of the user", race.in_process.flat, max_vectors=10**9),
        ]
        race.settle(settings)
        results["race"]["random/1000000"] = race.race(owner, contenders, scale.turns, cpu, settings)
        results["cold"]["random/1000000"] = cold_start.measure(stores, settings, owner)
        results["memory"]["random/1000000"] = memory.per_vector(settings, owner, graphs=False)
    return results


@contextlib.contextmanager
def prepared(
    servers: Servers, users: list[tuple[str, int]], total: int, *, narrow: bool = True
) -> Iterator[tuple[Settings, Corpus, Stores]]:
    """Create a database with the vectors of these users, sealed as by workers, and of others."""
    all_users = corpus.make(users, total)
    with servers.database() as name:
        settings = servers.settings(name)
        corpus.store(settings, all_users, narrow=narrow)
        with contextlib.closing(Stores(settings)) as stores:
            for owner in all_users.owners:
                started = time.perf_counter()
                segments = stores.seal(owner.user_id)
                if segments:
                    print(f"  sealed {owner.size:,} vectors in {time.perf_counter() - started:.1f} s", flush=True)
            yield settings, all_users, stores


def _about(settings: Settings) -> dict[str, str]:
    """Return the server's settings that matter here."""
    with connected(settings) as cursor:
        found = {}
        for name in ("server_version", "shared_buffers", "work_mem", "jit"):
            cursor.execute(f"SHOW {name}")
            (found[name],) = cursor.fetchone()
        cursor.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        (found["pgvector"],) = cursor.fetchone()
        return found


def measure_http(servers: Servers, scale: Scale) -> report.Results:
    return {"http": over_http.compare(servers, scale.turns)}


def measure_index_types(_: Servers, scale: Scale) -> report.Results:
    found = {}
    for kind, size in scale.index_types:
        print(f"  {kind}, {size:,}", flush=True)
        found[f"{kind}/{size}"] = index_types.measure(kind, size, scale.turns)
    return {"index_types": found}


SECTION = {"race": measure_race, "http": measure_http, "index_types": measure_index_types}

if __name__ == "__main__":
    main()
