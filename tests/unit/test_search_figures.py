"""The published figures of searches are complete, and their searches returned the right prompts."""

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


def test_every_contender_has_figures_at_every_size_or_a_reason() -> None:
    for own in OWN:
        figures = RESULTS["race"][f"random/{own}"]
        assert figures.keys() == CONTENDERS
        assert all("p50_ms" in each or each["skipped"] for each in figures.values())
    assert all("p50_ms" in each for each in RESULTS["race"]["random/10000"].values())


def test_whole_requests_are_compared_with_the_original_and_with_a_poll() -> None:
    assert RESULTS["http"].keys() == {"ours", "original", "a poll of ours"}


def test_a_search_takes_less_than_twice_as_long_as_a_poll() -> None:
    assert RESULTS["http"]["a poll of ours"]["times_ours"] >= 0.5


def test_our_search_finds_the_nearest() -> None:
    recalls = {user: figures["ours"]["recall"] for user, figures in RESULTS["race"].items()}
    assert {user: recall for user, recall in recalls.items() if recall < 0.99} == {}


def test_written_prompts_are_found_and_deleted_ones_are_not() -> None:
    written = RESULTS["own_writes"]["ours"]
    assert written["found"] == written["of"] > 0
    assert RESULTS["deletions"]["deleted"] > 0
    assert RESULTS["deletions"]["found afterwards"] == 0


def test_memory_stays_within_its_limit() -> None:
    assert RESULTS["bounded"]["most_held_mib"] <= 16


def test_the_tables_match_the_results() -> None:
    assert report.TABLES.read_text() == report.tables(RESULTS)
