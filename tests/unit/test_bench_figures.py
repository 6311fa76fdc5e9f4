"""The published figures of the end-to-end benchmark: complete, and correct in what does not depend on speed."""

from tests.benchmarks import pages
from tests.benchmarks.end_to_end import published, report, targets
from tests.benchmarks.end_to_end.contenders import PEERS
from tests.benchmarks.end_to_end.scale import SECTIONS
from tests.benchmarks.reporting import read

RESULTS = read(report.RESULTS)
CONTENDERS = {"ours", *PEERS}


def test_the_results_contain_every_section_and_its_conditions() -> None:
    assert set(SECTIONS) <= RESULTS.keys()
    assert set(SECTIONS) == RESULTS["conditions"].keys()


def test_the_results_contain_every_contender_or_the_reason_why_it_was_skipped() -> None:
    throughput, latency = RESULTS["throughput"], RESULTS["latency"]["quiet"]
    assert throughput.keys() == latency.keys() == CONTENDERS
    assert all("per_second" in row or row["skipped"] for row in throughput.values())
    assert all("push_ms" in row or row["skipped"] for row in latency.values())


def test_every_target_was_measured() -> None:
    verdicts = targets.verdicts(RESULTS)
    assert {name for name, row in verdicts.items() if "measured" not in row} == set()


def test_every_accepted_prompt_was_pushed_once() -> None:
    assert targets.faults(RESULTS).get("ours") is None


def test_the_overloaded_service_answers_503_and_recovers() -> None:
    overload = RESULTS["overload"]
    assert overload["accepted"] > 0
    assert set(overload["answers"]) <= {"202", "503"}
    assert overload["503_without_retry_after"] == 0
    assert overload["recovered_s"] is not None
    assert overload["emptied_s"] is not None


def test_the_scalability_section_has_a_plan_for_each_query_at_each_size() -> None:
    scalability = RESULTS["scalability"]
    assert all(len(points) >= 2 for points in scalability["axes"].values())
    assert {int(size) for size in scalability["plans"]} == {
        point["at"] for point in scalability["axes"]["stored prompts"]
    }
    assert all(plans.keys() == {"poll", "list", "claim", "reaper"} for plans in scalability["plans"].values())


def test_the_published_tables_match_the_results() -> None:
    assert report.TABLES.read_text() == report.tables(RESULTS)


def test_the_documentation_has_the_figures_of_the_results() -> None:
    assert pages.missing(published.PAGES, RESULTS) == []
