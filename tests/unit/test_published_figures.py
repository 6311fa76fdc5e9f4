"""The figures in the documentation are those of the results."""

import pytest

from tests.benchmarks import pages, published
from tests.benchmarks.reporting import read
from tests.benchmarks.search import report as search
from tests.benchmarks.sockets import report as sockets


@pytest.mark.parametrize("benchmark", [published, search, sockets], ids=["modules", "search", "sockets"])
def test_pages_have_the_figures_of_the_results(benchmark) -> None:
    assert pages.missing(benchmark.PAGES, read(benchmark.RESULTS)) == []


def test_the_table_of_sockets_matches_the_results() -> None:
    assert sockets.tables(read(sockets.RESULTS)) in sockets.TABLES.read_text()
