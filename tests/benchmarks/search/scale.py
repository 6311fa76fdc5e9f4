"""How much is measured."""

from argparse import Namespace
from dataclasses import dataclass

from tests.benchmarks.search.data import KINDS
from tests.benchmarks.search.figures import Turns

SECTIONS = ("http", "race", "index_types")

#: The users that the table in `infra/architecture.md` shows.
OWN = (100, 1_000, 10_000, 100_000)
#: Other kinds of vectors are measured with users of these sizes.
OTHER_KINDS_FROM = 10_000


@dataclass(frozen=True)
class Scale:
    """What a run measures. Sizes are numbers of vectors."""

    users: list[tuple[str, int]]  #: who is measured: the kind of their vectors, and how many
    total: int
    graph_total: int
    graph_own: int
    turns: Turns
    writes: int
    deletions: int
    small_users: int
    small_searches: int
    index_types: list[tuple[str, int]]
    million: bool


def scale_of(arguments: Namespace) -> Scale:
    """What the command line asks for."""
    quick, full, million = arguments.quick, arguments.full, arguments.million
    own = sorted(arguments.own or ((1_000, 20_000) if quick else OWN))
    users = [("random", size) for size in own]
    users += [(kind, size) for kind in KINDS[1:] for size in own if size >= OTHER_KINDS_FROM]
    total = arguments.total or (60_000 if quick else 1_000_000)
    if arguments.others is not None:
        total = arguments.others + sum(size for _, size in users)
    return Scale(
        users=users,
        total=total,
        graph_total=arguments.graph_total or (10_000 if quick else 250_000 if full else 100_000),
        graph_own=arguments.graph_own or (1_000 if quick else 100_000 if full else 10_000),
        turns=Turns(arguments.rounds or (2 if quick else 5), arguments.patience),
        writes=20 if quick else 200,
        deletions=100 if quick else 10_000 if full else 500,
        small_users=500 if quick else 10_000,
        small_searches=500 if quick else 5_000,
        index_types=_index_types(quick, million),
        million=million,
    )


def _index_types(quick: bool, million: bool) -> list[tuple[str, int]]:
    if quick:
        return [("random", 1_000)]
    sizes = [1_000, 10_000, 100_000]
    return [("random", size) for size in sizes] + [("clustered 1.0", 100_000)] + [("random", 1_000_000)] * million
