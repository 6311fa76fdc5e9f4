"""The published figures of whole prompts: complete, and right where speed does not matter."""

from tests.benchmarks.end_to_end import asked, report
from tests.benchmarks.end_to_end.contenders import PEERS
from tests.benchmarks.end_to_end.scale import SECTIONS
from tests.benchmarks.reporting import read

RESULTS = read(report.RESULTS)
CONTENDERS = {"ours", *PEERS}


def test_every_section_is_there_with_its_conditions() -> None:
    assert set(SECTIONS) <= RESULTS.keys()
    assert set(SECTIONS) == RESULTS["conditions"].keys()


def test_every_contender_is_there_or_says_why_not() -> None:
    throughput, latency = RESULTS["throughput"], RESULTS["latency"]["quiet"]
    assert throughput.keys() == latency.keys() == CONTENDERS
    assert all("per_second" in row or row["skipped"] for row in throughput.values())
    assert all("push_ms" in row or row["skipped"] for row in latency.values())


def test_what_was_asked_for_was_measured() -> None:
    verdicts = asked.verdicts(RESULTS)
    assert {name for name, row in verdicts.items() if "found" not in row} == set()


def test_every_accepted_prompt_was_pushed_once() -> None:
    assert asked.faults(RESULTS).get("ours") is None


def test_a_service_with_too_much_to_do_says_so_and_recovers() -> None:
    overload = RESULTS["overload"]
    assert overload["accepted"] > 0
    assert set(overload["answers"]) <= {"202", "503"}
    assert overload["503_without_retry_after"] == 0
    assert overload["recovered_s"] is not None
    assert overload["emptied_s"] is not None


def test_growth_has_a_plan_for_each_query_at_each_size() -> None:
    growth = RESULTS["growth"]
    assert all(len(points) >= 2 for points in growth["axes"].values())
    assert {int(size) for size in growth["plans"]} == {point["at"] for point in growth["axes"]["stored prompts"]}
    assert all(plans.keys() == {"poll", "list", "claim", "reaper"} for plans in growth["plans"].values())


def test_the_tables_are_those_of_the_results() -> None:
    assert report.TABLES.read_text() == report.tables(RESULTS)
