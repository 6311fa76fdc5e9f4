"""`make bench-search`: searches of ours beside those of others, and beside what else ours might have been.

The whole default run takes about a quarter of an hour; `--quick` less than two minutes.
"""

from tests.benchmarks.search.quiet import one_thread, quiet

one_thread()  # before NumPy is loaded

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
from tests.benchmarks.search import behaviour, corpus, index_types, over_http, race, report  # noqa: E402
from tests.benchmarks.search.corpus import Corpus, connected  # noqa: E402
from tests.benchmarks.search.figures import median  # noqa: E402
from tests.benchmarks.search.in_postgres import Stores  # noqa: E402
from tests.benchmarks.search.scale import SECTIONS, Scale, scale_of  # noqa: E402
from tests.support.servers import Servers  # noqa: E402


def main() -> None:
    quiet()
    faiss.omp_set_num_threads(1)
    arguments = parse()
    scale = scale_of(arguments)
    servers = Servers("bench-search")
    measured: report.Results = {"conditions": {}}
    servers.start()
    try:
        for section in arguments.sections:
            begun = time.perf_counter()
            print(f"{section} …", flush=True)
            results = SECTION[section](servers, scale)
            results["conditions"] = {**measured["conditions"], section: conditions(section, scale)}
            measured |= results
            print(f"{section} took {time.perf_counter() - begun:.0f} s", flush=True)
            if arguments.write:
                report.write(results)
    finally:
        servers.stop()
    print("\n" + report.tables(measured))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.search", description=__doc__)
    parser.add_argument("--own", type=int, nargs="+", help="how many vectors the users have who are measured")
    parser.add_argument("--total", type=int, help="how many vectors there are in all (default 1,000,000)")
    parser.add_argument("--others", type=int, help="how many vectors other users have in all, instead of --total")
    parser.add_argument("--graph-total", type=int, help="how many of them pgvector's HNSW and Chroma are given")
    parser.add_argument("--graph-own", type=int, help="up to how many own vectors usearch and hnswlib are built over")
    parser.add_argument("--rounds", type=int, help="how many turns each has")
    parser.add_argument(
        "--patience", type=float, default=0.0, help="seconds to wait in all for the machine to be quiet"
    )
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it works")
    parser.add_argument("--full", action="store_true", help="10,000 deletions, and larger graphs")
    parser.add_argument("--million", action="store_true", help="a user with 1,000,000 vectors too (ours and flat)")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what is measured")
    parser.add_argument("--index-types", dest="sections", action="store_const", const=["index_types"], help="only that")
    parser.add_argument("--write", action="store_true", help="replace these sections of the committed results")
    return parser.parse_args()


def conditions(section: str, scale: Scale) -> dict[str, Any]:
    about = {"total": scale.total, "graph_total": scale.graph_total} if section == "race" else {}
    busy = round(median(scale.turns.busy), 1) if scale.turns.busy else None
    scale.turns.busy.clear()
    return machine(report.LIBRARIES) | about | {"rounds": scale.turns.rounds, "busy_percent": busy}


def measure_race(servers: Servers, scale: Scale) -> report.Results:
    """The comparison, and what is measured of ours with the same users."""
    cpu = of_families([server_pid(servers)], and_this=True)
    with prepared(servers, scale.users, scale.total) as (settings, everybody, made):
        corpus.make_graph(settings, everybody, scale.graph_total)
        results: report.Results = {"race": {}, "cold": {}, "memory": {}, "postgres": _about(settings)}
        with TemporaryDirectory() as folder:
            limits = race.Limits(scale.graph_total, scale.graph_own)
            with race.contenders(settings, everybody, made, limits, Path(folder)) as taking_part:
                race.settle(settings)
                for owner in everybody.owners:
                    print(f"  {owner.kind}, {owner.size:,}", flush=True)
                    results["race"][f"{owner.kind}/{owner.size}"] = race.race(
                        owner, taking_part, scale.turns, cpu, settings
                    )
        for owner in everybody.owners:
            if owner.kind == "random":
                user = f"{owner.kind}/{owner.size}"
                results["cold"][user] = behaviour.cold(made, settings, owner)
                graphs = owner.size <= scale.graph_own
                results["memory"][user] = behaviour.memory(settings, owner, graphs=graphs)
        # From here on what users have changes.
        changing = [owner for owner in everybody.owners if owner.kind == "random" and owner.size >= 1_000]
        print("  writes, deletions, memory bound", flush=True)
        results["own_writes"] = behaviour.own_writes(settings, changing, scale.writes)
        results["deletions"] = behaviour.deletions(settings, made, changing[-2:], scale.deletions)
        results["bounded"] = behaviour.bounded(settings, everybody, scale.small_users, scale.small_searches)
    return _with_million(servers, scale, results) if scale.million else results


def _with_million(servers: Servers, scale: Scale, results: report.Results) -> report.Results:
    """Adds a user with a million vectors, alone: of ours, and flat."""
    cpu = of_families([server_pid(servers)], and_this=True)
    with prepared(servers, [("random", 1_000_000)], 0, narrow=False) as (settings, alone, made):
        (owner,) = alone.owners
        taking_part = [race.Ours(made), race.OwnIndex("FAISS flat of the user", race.in_process.flat, most=10**9)]
        race.settle(settings)
        results["race"]["random/1000000"] = race.race(owner, taking_part, scale.turns, cpu, settings)
        results["cold"]["random/1000000"] = behaviour.cold(made, settings, owner)
        results["memory"]["random/1000000"] = behaviour.memory(settings, owner, graphs=False)
    return results


@contextlib.contextmanager
def prepared(
    servers: Servers, users: list[tuple[str, int]], total: int, *, narrow: bool = True
) -> Iterator[tuple[Settings, Corpus, Stores]]:
    """A database with these users' vectors, sealed as workers do, and everybody else's."""
    everybody = corpus.make(users, total)
    with servers.database() as name:
        settings = servers.settings(name)
        corpus.store(settings, everybody, narrow=narrow)
        with contextlib.closing(Stores(settings)) as made:
            for owner in everybody.owners:
                begun = time.perf_counter()
                segments = made.seal(owner.user_id)
                if segments:
                    print(f"  sealed {owner.size:,} vectors in {time.perf_counter() - begun:.1f} s", flush=True)
            yield settings, everybody, made


def _about(settings: Settings) -> dict[str, str]:
    """The server's settings that matter here."""
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
