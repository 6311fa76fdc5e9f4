"""The published figures of searches: complete, and right where speed does not matter."""

from tests.benchmarks.reporting import read
from tests.benchmarks.search import report
from tests.benchmarks.search.scale import OWN

RESULTS = read(report.RESULTS)
CONTENDERS = {
    "ours",
    "pgvector exact",
    "pgvector HNSW",
    "Chroma",
    "LanceDB",
    "usearch",
    "hnswlib",
    "FAISS flat of the user",
    "FAISS flat of all, listed ids",
    "FAISS flat of all, id bitmap",
}


def test_every_contender_is_there_at_every_size_or_says_why_not() -> None:
    for own in OWN:
        figures = RESULTS["race"][f"random/{own}"]
        assert figures.keys() == CONTENDERS
        assert all("p50_ms" in each or each["skipped"] for each in figures.values())
    assert all("p50_ms" in each for each in RESULTS["race"]["random/10000"].values())


def test_whole_requests_are_compared() -> None:
    assert RESULTS["http"].keys() == {"ours", "original"}


def test_ours_finds_what_is_nearest() -> None:
    recalls = {user: figures["ours"]["recall"] for user, figures in RESULTS["race"].items()}
    assert {user: recall for user, recall in recalls.items() if recall < 0.99} == {}


def test_what_is_written_is_found_and_what_is_deleted_is_not() -> None:
    written = RESULTS["own_writes"]["ours"]
    assert written["found"] == written["of"] > 0
    assert RESULTS["deletions"]["deleted"] > 0
    assert RESULTS["deletions"]["found afterwards"] == 0


def test_memory_stays_within_its_bound() -> None:
    assert RESULTS["bounded"]["most_held_mib"] <= 16


def test_the_tables_are_those_of_the_results() -> None:
    assert report.TABLES.read_text() == report.tables(RESULTS)
